/* The lock of ipc/shm, for the model checker spin (spinroot.com): all
 * interleavings of those who take and release it, by ipc/shm/robust_lock.cc and
 * ipc/base/participants.cc, at small bounds, with a death before any step.
 *
 * Each access to shared memory is a step of its own, and so is each question to
 * the kernel. What is done with a value that was loaded is an alternative for
 * each value, and a CAS has two: it succeeds, or it fails.
 *
 * Memory is sequentially consistent, as spin knows no other. The memory orders
 * are argued in robust_lock.cc; no tool checks them but ThreadSanitizer, and
 * that between the threads of one process only.
 *
 * Who waits spins, by any number of loads, and may ask for the lock at any of
 * them: ASK. The moments that others wait then, to let it be taken, are no steps
 * of their own, as any worker may be slow at any step.
 *
 * READERS of the workers take no lock: they wait until it is free, as those of
 * a SharedMutex do, whose writers wake all. What they do then is in
 * shared_mutex.pml.
 *
 * What dies: a worker at any step, CRASHES of them in one run. The kernel drops
 * its file lock and takes it off the futex; all words stay. A later incarnation
 * attaches at the same index under the next epoch, once the old one is reaped,
 * by whoever. A worker that holds nothing may also leave the table in good
 * order, and come back under the next epoch: LEAVES times.
 *
 * The futex: the kernel compares the lower half of the word again and sleeps,
 * in one step. A wake-up ends the sleep of any one sleeper. With TICK, a sleep
 * may also end by itself, at any time.
 *
 * What is checked:
 * - two_holders, taken_from_living: one living worker at most holds the lock,
 *   and it is the one that the word names.
 * - not_told, told_for_nothing: who takes the lock is told of a death if and
 *   only if a holder has died in the lock and nobody has called MarkConsistent
 *   since. not_marked: so says IsDirty, once there is a next holder or
 *   nobody holds it.
 * - stuck: in each reachable state, the lock is free, or a living worker holds
 *   it, or whoever comes finds out that its owner is dead. It looks at the word
 *   and asks the kernel, and nothing else is in its way.
 * - lost_wakeup: without TICK, and if nobody dies or gives up, nobody sleeps
 *   while all others sleep too or want nothing of the lock. In other runs that
 *   does happen: the tick is there for it, by which a sleep is too long and not
 *   for ever.
 *
 * What is left out: AwaitFree, by which the readers of a SharedMutex wait, and
 * which frees the lock of a dead owner; `wanted` and `holder_cpu`, which are
 * hints; several threads of one participant, which end together; forks; owners
 * that lose their file lock alone, by closing descriptors they do not own; words
 * that are garbage, and the limit to how often a late one tries again.
 *
 * Nothing else bounds a run: workers take and release the lock without end.
 * Locals are zeroed where their values have no further use.
 */

/* The bounds. WORKERS is 2 to 4, CRASHES + LEAVES is 7 at most. */
#ifndef WORKERS
#define WORKERS 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef TICK
#define TICK 1
#endif
#ifndef GIVE_UP
#define GIVE_UP 1 /* whether a waiter's deadline may pass */
#endif
#ifndef ASK
#define ASK 0 /* whether the bit `wanted` is used */
#endif
#ifndef READERS
#define READERS 0 /* of the workers */
#endif
#ifndef WAKE_ALL
#define WAKE_ALL (READERS > 0)
#endif

/* The flaws, which the checks must find:
 * IGNORE_EPOCH       an owner counts as alive if anybody is, at its index
 * HALF_CAS           the heir's CAS compares the lower half only
 * BLIND_RELEASE      releasing stores, where it should CAS
 * QUIET_HEIR         a dead owner's lock is taken as if it were free
 * NO_WAITERS_BIT     parks without telling the owner
 * NO_PARKED_BIT      who has parked takes the lock as if nobody else had
 * BLIND_ASK          asking stores, where it should set a bit of what is there
 * BLIND_END          so does who need not ask any more
 * BLIND_EXPEL        so does a reader that has found the owner dead
 * UNMARKED_DEATH     a reader expels the dead as if they had left in order
 */

#include "base.pml"

/* Participants: state and epoch. */
#define FREE 0
#define ALIVE 1
#define DEAD 2
#define ENTRY(state, epoch) ((state) | (epoch) << 2)
#define ENTRY_STATE(entry) ((entry) & 3)
#define EPOCH(entry) ((entry) >> 2)

/* The lock's word: the owner's index + 1, three bits, the owner's epoch. */
#define WAITERS 8
#define DIRTY 16
#define WANTED 32
#define OWNER(index, epoch) (((index) + 1) | (epoch) << 6)
#define IS_OWNED(word) (((word) & 7) != 0)
#define INDEX_OF(word) (((word) & 7) - 1)
#define EPOCH_OF(word) ((word) >> 6)
#define LOWER_HALF(word) ((word) & 63)

/* What is in the segment. */
byte participant[WORKERS];
short word;

/* The kernel's. */
bit lock[WORKERS];
bit asleep[WORKERS];

/* What only the checks know. */
byte crashes;
byte leaves;
bit busy[WORKERS]; /* within an operation, or holding the lock */
byte holder;       /* index + 1 of the living one, or 0 */
bit suspect;       /* a holder died, and nobody has called MarkConsistent */

hidden byte two_holders;
hidden byte taken_from_living;
hidden byte not_told;
hidden byte told_for_nothing;
hidden byte not_marked;
hidden byte stuck;
hidden byte lost_wakeup;
hidden byte p_;

#ifdef IGNORE_EPOCH
#define IS_OF(entry, word) 1
#else
#define IS_OF(entry, word) (EPOCH(entry) == EPOCH_OF(word))
#endif
/* The end of Segment::IsDead. REQUIRES: the word is owned. */
#define LOOKS_ALIVE(word) \
  (ENTRY_STATE(participant[INDEX_OF(word)]) == ALIVE && \
   IS_OF(participant[INDEX_OF(word)], word))

#ifdef HALF_CAS
#define IS_SEEN_BY_HEIR (LOWER_HALF(word) == LOWER_HALF(seen))
#else
#define IS_SEEN_BY_HEIR (word == seen)
#endif

#if CRASHES
#define MEET_CRASHED(what) MEET(what)
#else
#define MEET_CRASHED(what) skip
#endif
#if ASK
#define MEET_ASKED(what) MEET(what)
#else
#define MEET_ASKED(what) skip
#endif

#define FORGET_WAITING seen = 0; entry = 0; parked = 0; asked = 0
#define FORGET FORGET_WAITING; dirty = 0

#define DIE \
  crashes++; \
  if \
  :: holder == me + 1 -> holder = 0; suspect = 1 \
  :: else \
  fi; \
  lock[me] = 0; asleep[me] = 0; busy[me] = 0; epoch = 0; \
  FORGET
#define OR_DIE :: d_step { crashes < CRASHES -> DIE } goto attach

#define TAKE(bits, is_told) \
  word = OWNER(me, epoch) | (bits); \
  dirty = ((is_told) -> 1 : 0); \
  if \
  :: holder -> FAIL(two_holders) \
  :: !holder && suspect && !dirty -> FAIL(not_told) \
  :: !holder && !suspect && dirty -> FAIL(told_for_nothing) \
  :: else \
  fi; \
  holder = me + 1; \
  FORGET_WAITING

#if READERS
#define IS_READER (me >= WORKERS - READERS)
#else
#define IS_READER 0
#endif

#define WAKE(p) :: d_step { asleep[p] -> asleep[p] = 0; busy[me] = 0 } goto idle
#if WORKERS == 2
#define IS_ANY_ASLEEP (asleep[0] || asleep[1])
#define WAKE_ONE WAKE(0) WAKE(1)
#elif WORKERS == 3
#define IS_ANY_ASLEEP (asleep[0] || asleep[1] || asleep[2])
#define WAKE_ONE WAKE(0) WAKE(1) WAKE(2)
#else
#define IS_ANY_ASLEEP (asleep[0] || asleep[1] || asleep[2] || asleep[3])
#define WAKE_ONE WAKE(0) WAKE(1) WAKE(2) WAKE(3)
#endif

proctype Worker(byte me) {
  byte epoch;
  short seen;
  byte entry;
  byte parked; /* WAITERS once we have parked */
  bit asked;   /* it is we who want it, or we have let those who do */
  bit dirty;
  goto idle;

  /* The next incarnation. While the index has no lock, nobody but us can give
   * it one: what ReapOne asks for and does are single steps here. */
attach:
  if
  :: d_step {
       ENTRY_STATE(participant[me]) == ALIVE ->
       participant[me] = ENTRY(DEAD, EPOCH(participant[me]))
     } goto attach
  :: d_step {
       ENTRY_STATE(participant[me]) == DEAD ->
       participant[me] = ENTRY(FREE, EPOCH(participant[me]) + 1)
     } goto attach
  :: d_step { ENTRY_STATE(participant[me]) == FREE -> lock[me] = 1 }
  fi;
  d_step {
    assert(ENTRY_STATE(participant[me]) == FREE);
    epoch = EPOCH(participant[me]);
    participant[me] = ENTRY(ALIVE, epoch)
  }

  /* TryAcquire, or leave; a reader has found that there is a writer. */
idle:
  if
  :: d_step { !IS_READER && word == 0 -> busy[me] = 1; TAKE(0, 0) } goto held
  :: d_step { !IS_READER && word != 0 -> busy[me] = 1 }
#if READERS
  :: d_step { IS_READER && IS_OWNED(word) -> busy[me] = 1 } goto await
#endif
#if LEAVES
  :: d_step {
       leaves < LEAVES && participant[me] == ENTRY(ALIVE, epoch) ->
       leaves++;
       participant[me] = ENTRY(FREE, epoch + 1);
       epoch = 0
     } goto unlock
#endif
  OR_DIE
  fi;

  /* Acquire */
load:
  if
  :: d_step { true -> seen = word }
  OR_DIE
  fi;
look:
  if
#if READERS
  :: IS_READER && !IS_OWNED(seen) -> goto free
#endif
#if ASK
  /* LetOthersTakeIt */
  :: d_step {
       !IS_READER && !IS_OWNED(seen) && (seen & WANTED) && !asked ->
       asked = 1;
       seen = word
     } goto look
  /* Ask */
  :: d_step {
       IS_OWNED(seen) && !asked ->
#ifdef BLIND_ASK
       word = seen | WANTED;
#else
       word = word | WANTED;
#endif
       seen = word;
       asked = 1
     } goto look
#endif
  :: d_step {
       !IS_READER && !IS_OWNED(seen) && word == seen &&
       (asked || (seen & WANTED) == 0) ->
       if
       :: seen & WANTED -> MEET_ASKED(taken_by_who_asked)
       :: else
       fi;
       if
       :: seen & DIRTY -> MEET_CRASHED(told_by_the_bit)
       :: else
       fi;
#ifdef NO_PARKED_BIT
       TAKE(seen & (WAITERS | DIRTY), seen & DIRTY)
#else
       TAKE((seen & (WAITERS | DIRTY)) | parked, seen & DIRTY)
#endif
     } goto held
  :: d_step {
       !IS_READER && !IS_OWNED(seen) && word != seen -> seen = word
     } goto look
  /* Spinning. */
  :: d_step { IS_OWNED(seen) && word != seen -> seen = word } goto look

  /* IsDead. Of its own index, a participant knows without asking. */
  :: IS_OWNED(seen) && INDEX_OF(seen) == me -> goto judge
  :: IS_OWNED(seen) && INDEX_OF(seen) != me &&
     ENTRY_STATE(participant[INDEX_OF(seen)]) == FREE -> goto judge
  :: d_step {
       IS_OWNED(seen) && INDEX_OF(seen) != me &&
       ENTRY_STATE(participant[INDEX_OF(seen)]) == DEAD ->
       entry = participant[INDEX_OF(seen)]
     } goto free_index
  :: d_step {
       IS_OWNED(seen) && INDEX_OF(seen) != me &&
       ENTRY_STATE(participant[INDEX_OF(seen)]) == ALIVE ->
       entry = participant[INDEX_OF(seen)]
     }
  OR_DIE
  fi;

  /* ReapOne */
  if
  :: d_step { lock[INDEX_OF(seen)] -> entry = 0 } goto judge
  :: !lock[INDEX_OF(seen)]
  OR_DIE
  fi;
  if
  :: d_step {
       participant[INDEX_OF(seen)] == entry ->
       entry = ENTRY(DEAD, EPOCH(entry));
       participant[INDEX_OF(seen)] = entry
     } goto free_index
  :: d_step { participant[INDEX_OF(seen)] != entry -> entry = 0 }
  OR_DIE
  fi;
  if
  :: d_step {
       ENTRY_STATE(participant[INDEX_OF(seen)]) == DEAD ->
       entry = participant[INDEX_OF(seen)]
     }
  :: ENTRY_STATE(participant[INDEX_OF(seen)]) != DEAD -> goto judge
  OR_DIE
  fi;
free_index:
  if
  :: d_step {
       true ->
       if
       :: participant[INDEX_OF(seen)] == entry ->
          participant[INDEX_OF(seen)] = ENTRY(FREE, EPOCH(entry) + 1)
       :: else
       fi;
       entry = 0
     }
  OR_DIE
  fi;

judge:
  if
  :: d_step {
       !LOOKS_ALIVE(seen) ->
       if
       :: ENTRY_STATE(participant[INDEX_OF(seen)]) == ALIVE ->
          MEET_CRASHED(found_by_epoch)
       :: else
       fi
     }
  :: LOOKS_ALIVE(seen) -> goto alive
  OR_DIE
  fi;
  if
#if READERS
  :: d_step {
       IS_READER &&
#ifdef BLIND_EXPEL
       true ->
#else
       word == seen ->
#endif
       MEET_CRASHED(expelled);
#ifdef UNMARKED_DEATH
       word = seen & (WAITERS | DIRTY);
#else
       word = DIRTY | (seen & WAITERS);
#endif
     } goto free
#endif
  :: d_step {
       !IS_READER && IS_SEEN_BY_HEIR ->
       MEET_CRASHED(inherited);
#ifdef QUIET_HEIR
       TAKE((seen & (WAITERS | DIRTY)) | parked, seen & DIRTY)
#else
       TAKE((seen & WAITERS) | parked | DIRTY, 1)
#endif
     } goto held
  :: d_step {
       !IS_SEEN_BY_HEIR ->
       MEET_CRASHED(another_inherited);
       seen = word
     } goto look
  OR_DIE
  fi;

alive:
#ifndef NO_WAITERS_BIT
  if
  :: (seen & WAITERS) != 0
  :: d_step {
       (seen & WAITERS) == 0 && word == seen ->
       seen = seen | WAITERS;
       word = seen
     }
  :: d_step { (seen & WAITERS) == 0 && word != seen -> seen = word } goto look
#if GIVE_UP
  :: d_step { !IS_READER -> FORGET_WAITING; busy[me] = 0 } goto idle
#if READERS
  :: IS_READER -> goto free
#endif
#endif
  OR_DIE
  fi;
#endif
  if
  :: d_step {
       LOWER_HALF(word) == LOWER_HALF(seen) ->
       asleep[me] = 1;
       seen = 0; parked = WAITERS
     }
  :: d_step {
       LOWER_HALF(word) != LOWER_HALF(seen) -> seen = 0; parked = WAITERS
     } goto load
  OR_DIE
  fi;
  if
  :: !asleep[me] -> MEET(woken); goto load
#if TICK
  :: d_step { asleep[me] -> asleep[me] = 0 } goto load
#endif
  OR_DIE
  fi;

held:
  if
  /* MarkConsistent, by MarkClean */
  :: d_step {
       dirty -> dirty = 0; suspect = 0; word = word & (~DIRTY)
     } goto held
  :: d_step { true -> seen = word } /* Release */
  OR_DIE
  fi;
release:
  if
#ifdef BLIND_RELEASE
  :: d_step {
       true ->
#else
  :: d_step { word != seen -> seen = word } goto release
  :: d_step {
       word == seen ->
#endif
       word = (dirty -> DIRTY : 0) | (seen & WANTED);
       holder = 0;
       dirty = 0
     }
  OR_DIE
  fi;
  if
  :: d_step { (seen & WAITERS) == 0 -> seen = 0; busy[me] = 0 } goto idle
  :: d_step { (seen & WAITERS) != 0 -> seen = 0 }
  fi;
  if
#if WAKE_ALL
  :: d_step {
       true ->
       p_ = 0;
       do
       :: p_ < WORKERS -> asleep[p_] = 0; p_++
       :: else -> break
       od;
       p_ = 0;
       busy[me] = 0
     } goto idle
#else
  WAKE_ONE
  :: d_step { !IS_ANY_ASLEEP -> busy[me] = 0 } goto idle
#endif
  OR_DIE
  fi;

#if READERS
  /* AwaitFree, which begins by Ask. */
await:
  if
  :: d_step {
       true ->
#if ASK
#ifdef BLIND_ASK
       word = seen | WANTED;
#else
       word = word | WANTED;
#endif
#endif
       seen = word;
       asked = 1
     } goto look
  OR_DIE
  fi;
  /* It is free, or was. There may be another writer by now, or it is content,
   * or its time is over: EndWait. */
free:
  if
  :: d_step { true -> seen = word }
  :: d_step { IS_OWNED(word) -> FORGET_WAITING } goto await
  OR_DIE
  fi;
  if
  :: d_step {
       true ->
#if ASK
#ifdef BLIND_END
       word = seen & (~WANTED);
#else
       if
       :: seen & WANTED -> word = word & (~WANTED)
       :: else
       fi;
#endif
#endif
       FORGET_WAITING;
       busy[me] = 0
     } goto idle
  OR_DIE
  fi;
#endif

#if LEAVES
unlock:
  lock[me] = 0;
  goto attach
#endif
}

/* Looks at each reachable state, and leaves it as it is. */
hidden byte awake_;

proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       if
       :: !IS_OWNED(word) ->
          if
          :: holder -> FAIL(taken_from_living)
          :: else
          fi;
          if
          :: ((word & DIRTY) != 0) != suspect -> FAIL(not_marked)
          :: else
          fi
       :: IS_OWNED(word) && holder ->
          if
          :: INDEX_OF(word) + 1 != holder ||
             EPOCH_OF(word) != EPOCH(participant[holder - 1]) ||
             ENTRY_STATE(participant[holder - 1]) != ALIVE ->
             FAIL(taken_from_living)
          :: else
          fi;
          if
          :: suspect && (word & DIRTY) == 0 -> FAIL(not_marked)
          :: else
          fi
       :: IS_OWNED(word) && !holder ->
          if
          :: LOOKS_ALIVE(word) && lock[INDEX_OF(word)] -> FAIL(stuck)
          :: else
          fi
       fi;
       awake_ = 0;
       p_ = 0;
       do
       :: p_ < WORKERS ->
          if
          :: busy[p_] && !asleep[p_] -> awake_ = 1
          :: else
          fi;
          p_++
       :: else -> break
       od;
       if
       :: IS_ANY_ASLEEP && !awake_ ->
#if TICK
          MEET_CRASHED(left_to_the_tick)
#else
          FAIL(lost_wakeup)
#endif
       :: else
       fi;
       awake_ = 0; p_ = 0
     }
  od
}

init {
  byte i;
  d_step {
    do
    :: i < WORKERS -> lock[i] = 1; participant[i] = ENTRY(ALIVE, 0); i++
    :: else -> break
    od;
    i = 0
  }
  atomic {
    do
    :: i < WORKERS -> run Worker(i); i++
    :: else -> break
    od;
    run Survivor();
    i = 0
  }
}
