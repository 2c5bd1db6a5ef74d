/* How readers and writers of ipc/shm/shared_mutex.cc keep out of each other's
 * way, for the model checker spin (spinroot.com): all interleavings at small
 * bounds, with a death before any step.
 *
 * Each access to shared memory is a step of its own. What is done with a value
 * that was loaded is an alternative for each value, and a CAS has two.
 *
 * Memory is sequentially consistent, as spin knows no other; all that this
 * stands on is seq_cst in the code.
 *
 * The writers' lock is one step here, which takes it from nobody or from the
 * dead, and a reader that waits for it expels the dead in one step: see
 * robust_lock.pml. A reader is one process with one thread. It has an index of
 * its own, and when it is killed its count stays; a later incarnation has the
 * same index under the next epoch.
 *
 * What dies: anybody at any step, CRASHES of them in one run. The kernel takes
 * it off the futex. With TICK a sleep may also end by itself, at any time.
 *
 * What is checked:
 * - together: while a living writer holds it, nobody else does.
 * - lost_count: the count of a living reader is what it holds, and no more: what
 *   is left too high would keep writers waiting for ever, and what is too low
 *   let one in.
 * - robbed: only the counts of the dead are taken away.
 * - lost_wakeup: without TICK, and if nobody dies, no writer sleeps for a reader
 *   that has left.
 *
 * What is left out: several threads of one reader, whose count is more than one;
 * deadlines, after which a writer gives its lock back and a reader does not
 * enter, by steps that are here, too; how those who wait for the lock sleep.
 */

/* The bounds. */
#ifndef READERS
#define READERS 2
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef TICK
#define TICK 1
#endif

/* The flaws, which the checks must find:
 * LOOK_FIRST       a reader looks for a writer before it raises its count, and
 *                  not after it
 * READERS_FIRST    a writer looks for readers before it has the lock
 * END_LAST         a reader raises reader_end after it has looked for a writer
 * IGNORE_EPOCH     an incarnation adds to what the one before has left
 * BLIND_CLEAR      what a dead one has left is cleared by a store
 * QUIET_LEAVE      the last to leave does not look for a writer that sleeps
 * BLIND_PARK       a writer says that it sleeps by a store
 */

#include "base.pml"

/* A reader's word: its count, whether a writer sleeps for it, its epoch. */
#define COUNT 1
#define WAITING 2
#define WORD(epoch, count) ((epoch) << 2 | (count))
#define EPOCH_OF(word) ((word) >> 2)

/* What is in the segment. */
byte owner; /* of the writers' lock: index + 1, or 0 */
bit is_owner_dead;
byte reader_end;
byte count[READERS];

/* The kernel's. */
byte epoch[READERS];  /* of the incarnation that lives, or lived last */
bit alive[READERS];
byte asleep[WRITERS]; /* on the word of which reader, index + 1, or 0 */

/* What only the checks know. */
byte crashes;
bit counted[READERS]; /* it has raised its count, and not lowered it */
bit busy[READERS];
bit reads[READERS];
byte writes; /* index + 1 of the living one, or 0 */

hidden byte together;
hidden byte lost_count;
hidden byte robbed;
hidden byte lost_wakeup;
hidden byte i_;

#if CRASHES
#define MEET_CRASHED(what) MEET(what)
#else
#define MEET_CRASHED(what) skip
#endif

#define READER_DIES \
  :: d_step { \
       crashes < CRASHES -> \
       crashes++; \
       alive[me] = 0; counted[me] = 0; busy[me] = 0; reads[me] = 0; \
       seen = 0 \
     } goto attach
#define WRITER_DIES \
  :: d_step { \
       crashes < CRASHES -> \
       crashes++; \
       if \
       :: owner == me + 1 -> is_owner_dead = 1 \
       :: else \
       fi; \
       if \
       :: writes == me + 1 -> writes = 0 \
       :: else \
       fi; \
       asleep[me] = 0; \
       seen = 0; end = 0; i = 0 \
     } goto idle

#define CHECK_TOGETHER \
  i_ = 0; \
  do \
  :: i_ < READERS && writes && reads[i_] -> FAIL(together) \
  :: i_ < READERS && !(writes && reads[i_]) -> i_++ \
  :: else -> break \
  od; \
  i_ = 0

#ifdef IGNORE_EPOCH
#define RAISED ((seen & COUNT) -> seen : seen + 1)
#else
#define RAISED (EPOCH_OF(seen) == epoch[me] -> seen + 1 : WORD(epoch[me], 1))
#endif

proctype Reader(byte me) {
  byte seen;
  goto idle;

attach:
end_attach:
  if
  :: d_step { true -> epoch[me]++; alive[me] = 1 }
  fi;

  /* Enter, if there is no writer. */
idle:
end_idle:
  if
  :: d_step { owner == 0 -> busy[me] = 1 }
  :: d_step {
       owner != 0 && is_owner_dead ->
       owner = 0; is_owner_dead = 0
     } goto idle
  READER_DIES
  fi;
#ifndef END_LAST
end:
  if
  :: reader_end > me -> goto load
  :: d_step { reader_end <= me -> seen = reader_end }
  READER_DIES
  fi;
  if
  :: d_step { reader_end == seen -> reader_end = me + 1; seen = 0 }
  :: d_step { reader_end != seen -> MEET(end_was_raised); seen = 0 } goto end
  READER_DIES
  fi;
#endif
#ifdef LOOK_FIRST
  if
  :: owner == 0
  :: d_step { owner != 0 -> busy[me] = 0 } goto idle
  READER_DIES
  fi;
#endif
load:
  if
  :: d_step { true -> seen = count[me] }
  READER_DIES
  fi;
raise:
  if
  :: d_step {
       count[me] == seen ->
       if
       :: EPOCH_OF(seen) != epoch[me] && (seen & COUNT) ->
          MEET_CRASHED(overwritten)
       :: else
       fi;
       count[me] = RAISED;
       counted[me] = 1;
       seen = 0
     }
  :: d_step { count[me] != seen -> seen = count[me] } goto raise
  READER_DIES
  fi;
#ifndef LOOK_FIRST
  if
  :: owner == 0
  :: owner != 0 -> MEET(left_again); goto leave
  READER_DIES
  fi;
#endif
#ifdef END_LAST
  if
  :: d_step {
       true -> reader_end = (reader_end <= me -> me + 1 : reader_end)
     }
  READER_DIES
  fi;
#endif
  if
  :: d_step { true -> reads[me] = 1; CHECK_TOGETHER }
  READER_DIES
  fi;
  if
  :: d_step { true -> reads[me] = 0 }
  READER_DIES
  fi;

leave:
  if
  :: d_step { true -> seen = count[me] }
  READER_DIES
  fi;
lower:
  if
  :: d_step {
       count[me] == seen ->
       if
       :: EPOCH_OF(seen) != epoch[me] || (seen & COUNT) == 0 -> FAIL(robbed)
       :: else
       fi;
       count[me] = WORD(epoch[me], 0);
       counted[me] = 0
     }
  :: d_step { count[me] != seen -> seen = count[me] } goto lower
  READER_DIES
  fi;
  if
#ifdef QUIET_LEAVE
  :: d_step { true -> seen = 0; busy[me] = 0 } goto idle
#else
  :: d_step { (seen & WAITING) == 0 -> seen = 0; busy[me] = 0 } goto idle
  :: d_step {
       (seen & WAITING) != 0 ->
       i_ = 0;
       do
       :: i_ < WRITERS && asleep[i_] == me + 1 -> asleep[i_] = 0; break
       :: i_ < WRITERS && asleep[i_] != me + 1 -> i_++
       :: else -> break
       od;
       i_ = 0;
       seen = 0; busy[me] = 0
     } goto idle
#endif
  READER_DIES
  fi
}

proctype Writer(byte me) {
  byte seen;
  byte end;
  byte i; /* of the reader that it looks for */

idle:
end_idle:
#ifdef READERS_FIRST
  if
  :: d_step { true -> end = reader_end; i = 0 }
  fi;
#else
  if
  :: d_step {
       owner == 0 || is_owner_dead ->
       if
       :: is_owner_dead -> MEET_CRASHED(inherited)
       :: else
       fi;
       owner = me + 1;
       is_owner_dead = 0
     }
  fi;
  if
  :: d_step { true -> end = reader_end }
  WRITER_DIES
  fi;
#endif
next:
  if
  :: d_step { i < end -> seen = count[i] }
  :: i == end -> goto all
  WRITER_DIES
  fi;
await:
  if
  :: d_step { (seen & COUNT) == 0 -> seen = 0; i++ } goto next
  /* Spinning. */
  :: d_step { (seen & COUNT) && count[i] != seen -> seen = count[i] } goto await
  /* IsDead */
  :: d_step {
       (seen & COUNT) && (!alive[i] || epoch[i] != EPOCH_OF(seen))
     } goto clear
  :: (seen & COUNT) && alive[i] && epoch[i] == EPOCH_OF(seen)
  WRITER_DIES
  fi;
  /* It lives. */
  if
  :: (seen & WAITING) != 0
#ifdef BLIND_PARK
  :: d_step {
       (seen & WAITING) == 0 -> seen = seen | WAITING; count[i] = seen
     }
#else
  :: d_step {
       (seen & WAITING) == 0 && count[i] == seen ->
       seen = seen | WAITING;
       count[i] = seen
     }
  :: d_step {
       (seen & WAITING) == 0 && count[i] != seen -> seen = count[i]
     } goto await
#endif
  WRITER_DIES
  fi;
  /* The futex compares the lower half, which has no epoch. */
  if
  :: d_step {
       (count[i] & (COUNT | WAITING)) == (seen & (COUNT | WAITING)) ->
       asleep[me] = i + 1; seen = 0
     }
  :: d_step {
       (count[i] & (COUNT | WAITING)) != (seen & (COUNT | WAITING)) -> seen = 0
     }
  WRITER_DIES
  fi;
  if
  :: d_step { asleep[me] == 0 -> MEET(awake); seen = count[i] } goto await
#if TICK
  :: d_step { asleep[me] != 0 -> asleep[me] = 0; seen = count[i] } goto await
#endif
  WRITER_DIES
  fi;
clear:
  if
#ifdef BLIND_CLEAR
  :: d_step {
       true -> count[i] = WORD(EPOCH_OF(seen), 0); seen = 0; i++
     } goto next
#else
  :: d_step {
       count[i] == seen ->
       MEET_CRASHED(cleared);
       count[i] = WORD(EPOCH_OF(seen), 0);
       seen = 0;
       i++
     } goto next
  :: d_step {
       count[i] != seen -> MEET_CRASHED(came_back); seen = count[i]
     } goto await
#endif
  WRITER_DIES
  fi;

all:
#ifdef READERS_FIRST
  if
  :: d_step { owner == 0 || is_owner_dead -> owner = me + 1; is_owner_dead = 0 }
  fi;
#endif
  if
  :: d_step { true -> i = 0; end = 0; writes = me + 1; CHECK_TOGETHER }
  WRITER_DIES
  fi;
  if
  :: d_step { true -> writes = 0; owner = 0 } goto idle
  WRITER_DIES
  fi
}

/* Looks at each reachable state, and leaves it as it is. */
hidden byte j_;

proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       i_ = 0;
       do
       :: i_ < READERS ->
          if
          :: alive[i_] && EPOCH_OF(count[i_]) == epoch[i_] &&
             (count[i_] & COUNT) != counted[i_] -> FAIL(lost_count)
          :: alive[i_] && EPOCH_OF(count[i_]) != epoch[i_] && counted[i_] ->
             FAIL(lost_count)
          :: else
          fi;
          j_ = 0;
          do
          :: j_ < WRITERS && asleep[j_] == i_ + 1 && !busy[i_] ->
#if TICK
             MEET_CRASHED(left_to_the_tick);
#else
             FAIL(lost_wakeup);
#endif
             j_++
          :: j_ < WRITERS && !(asleep[j_] == i_ + 1 && !busy[i_]) -> j_++
          :: else -> break
          od;
          i_++
       :: else -> break
       od;
       i_ = 0; j_ = 0
     }
  od
}

init {
  byte i;
  atomic {
    do
    :: i < READERS -> alive[i] = 1; run Reader(i); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < WRITERS -> run Writer(i); i++
    :: else -> break
    od;
    run Survivor();
    i = 0
  }
}
