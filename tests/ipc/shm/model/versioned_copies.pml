/* Values that outlive their writers, for the model checker spin (spinroot.com):
 * all interleavings of ipc/shm/versioned_copies.cc at small bounds, with the
 * death of a writer before any step.
 *
 * Each access to shared memory is a step of its own: each word of a copy is
 * stored and loaded by itself.
 *
 * Memory is sequentially consistent, as spin knows no other. The memory orders
 * are argued in versioned_copies.h, and ThreadSanitizer checks them.
 *
 * What dies: a writer at any step, CRASHES of them in one run. It comes back as
 * another one. The writers' lock is one step here, which takes it from nobody
 * or from the dead: see robust_lock.pml.
 *
 * A value is WORDS times the number of the Store that stores it. Numbers are
 * given under the lock, so that they grow in the order of commits.
 *
 * The version is a byte and starts so that it wraps around within the run. A
 * reader may be lapped by as many stores as there are in a run, which is enough
 * to fill each copy twice. It must not be by 256: the code has 2^64 for that,
 * and no reader is that slow.
 *
 * What is checked:
 * - mix: a value that a reader accepts was given to one Store, all of it.
 * - uncommitted: that Store has published its version.
 * - stale: it is no older than the last one whose commit came before the read
 *   began; so no older than any that had returned.
 * - blocked: in each reachable state, be its writers dead or only slow, a
 *   reader that is left alone gets the last value committed at its first try.
 *
 * What is left out: waiting for a change; more than one reader, as readers
 * write nothing that others see; giving up after thousands of tries.
 */

/* The bounds. COPIES is a power of two, for the order of copies to survive the
 * wrap-around: 3 is a flaw. */
#ifndef COPIES
#define COPIES 4
#endif
#ifndef WORDS
#define WORDS 2
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef STORES
#define STORES (2 * COPIES + 2) /* that get the lock, by any writer */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SURVIVOR
#define SURVIVOR 1 /* 0: "blocked" is not checked, to see what a reader finds */
#endif

/* The flaws, which the checks must find:
 * PUBLISH_FIRST   stores the version before it fills the copy
 * ACCEPT_LATE     accepts a copy that is being filled
 * IN_PLACE        fills the valid copy
 */

#include "base.pml"

#ifdef ACCEPT_LATE
#define ACCEPTED COPIES
#else
#define ACCEPTED (COPIES - 1)
#endif
#define IS_ACCEPTED(before, after) ((((after) - (before)) & 255) < ACCEPTED)

#ifdef IN_PLACE
#define COPY_TO_FILL (next - 1)
#else
#define COPY_TO_FILL next
#endif

/* The version at the start: three before the wrap-around, in copy 1 or 3. */
#define FIRST_VERSION 253

/* What is in the segment. */
#define COPY(version, i) words[((version) & 255) % COPIES * WORDS + (i)]
byte words[COPIES * WORDS];
byte version = FIRST_VERSION;
byte owner;          /* of the lock: index + 1, or 0 */
bit is_owner_dead;

/* What only the checks know. Of the first value, the number is 0. */
byte numbers = 1;    /* of the next Store */
byte committed;      /* number of the last one */
short ever;          /* set of numbers committed */
byte crashes;

hidden byte mix;
hidden byte uncommitted;
hidden byte stale;
hidden byte blocked;

/* Two copies leave no room for a store within a read. */
#if COPIES > 2
#define MEET_ACCEPTED_LATER(what) MEET(what)
#else
#define MEET_ACCEPTED_LATER(what) skip
#endif
#if CRASHES
#define MEET_CRASHED(what) MEET(what)
#else
#define MEET_CRASHED(what) skip
#endif

#define BIT(number) (1 << (number))

#define OR_DIE \
  :: d_step { \
       crashes < CRASHES -> \
       crashes++; \
       is_owner_dead = 1; \
       next = 0; number = 0; i = 0 \
     } goto idle

#define PUBLISH version = next; ever = ever | BIT(number)

proctype Writer(byte me) {
  byte next;
  byte number;
  byte i;

idle:
end_idle:
  atomic {
    numbers < STORES + 1 && (owner == 0 || is_owner_dead) ->
    if
    :: owner != 0 -> MEET_CRASHED(inherited)
    :: else
    fi;
    owner = me + 1;
    is_owner_dead = 0;
    number = numbers;
    numbers++
  }
  if
  :: d_step { true -> next = version + 1 }
  OR_DIE
  fi;
#ifdef PUBLISH_FIRST
  if
  :: d_step { true -> PUBLISH }
  OR_DIE
  fi;
#endif
fill:
  if
  :: d_step { i < WORDS -> COPY(COPY_TO_FILL, i) = number; i++ } goto fill
  :: i == WORDS
  OR_DIE
  fi;
  if
  :: d_step {
       true ->
#ifndef PUBLISH_FIRST
       PUBLISH;
#endif
       committed = number
     }
  OR_DIE
  fi;
  if
  :: d_step { true -> owner = 0; next = 0; number = 0; i = 0 } goto idle
  OR_DIE
  fi
}

proctype Reader() {
  byte before;
  byte value[WORDS];
  byte floor; /* number of the Store that the read must not be older than */
  byte i;

idle:
end_idle:
  atomic { true -> before = version; floor = committed }
copy:
  if
  :: d_step { i < WORDS -> value[i] = COPY(before, i); i++ } goto copy
  :: d_step { i == WORDS -> i = 1 }
  fi;
  d_step {
    if
    :: IS_ACCEPTED(before, version) ->
       do
       :: i < WORDS && value[i] != value[0] -> FAIL(mix)
       :: i < WORDS && value[i] == value[0] -> i++
       :: else -> break
       od;
       if
       :: (ever & BIT(value[0])) == 0 -> FAIL(uncommitted)
       :: else
       fi;
       if
       :: value[0] < floor -> FAIL(stale)
       :: else
       fi;
       if
       :: version < before -> MEET_ACCEPTED_LATER(accepted_over_the_wrap)
       :: else
       fi
    :: else ->
       MEET(lapped);
       i = 1;
       do
       :: i < WORDS && value[i] != value[0] -> MEET(mix_refused); i++
       :: i < WORDS && value[i] == value[0] -> i++
       :: else -> break
       od
    fi;
    i = 0;
    do
    :: i < WORDS -> value[i] = 0; i++
    :: else -> break
    od;
    before = 0; floor = 0; i = 0
  }
  goto idle
}

#if SURVIVOR
/* Looks at each reachable state, and leaves it as it is. */
hidden byte i_;

proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       i_ = 0;
       do
       :: i_ < WORDS && COPY(version, i_) != committed -> FAIL(blocked)
       :: i_ < WORDS && COPY(version, i_) == committed -> i_++
       :: else -> break
       od;
       i_ = 0
     }
  od
}
#endif

init {
  byte i;
  ever = BIT(0);
  atomic {
    do
    :: i < WRITERS -> run Writer(i); i++
    :: else -> break
    od;
    run Reader();
#if SURVIVOR
    run Survivor();
#endif
    i = 0
  }
}
