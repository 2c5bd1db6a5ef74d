/* What the models have in common: words, participants, death, and checks.
 *
 * A model defines before: PRODUCERS, CONSUMERS, REAPERS, CRASHES, LOST_LOCKS;
 * and FORGET, which zeroes the locals of a process, for each of its kinds. */

#define WORKERS (PRODUCERS + CONSUMERS)

/* Slot words: state, the owner's index, the last bits of its epoch, the lap.
 *
 * Of an epoch, a word keeps as much as makes a difference in one run. With one
 * bit less, the word that a stopped reaper has seen comes back after two
 * deaths; the code has 20 bits. */
#ifndef EPOCH_MASK
#define EPOCH_MASK 3
#endif
/* The head falls behind by a lap for each lap of slots of which every sender
 * died, while nobody receives; so half of LAPS must be more than CRASHES. */
#define LAPS 8
#define FREE 0
#define WRITING 1
#define READY 2
#define READING 3
#define REQ 4
#define SKIP 5
#define END 6
#define WORD(state, lap) ((state) | ((lap) % LAPS) << 7)
#define STATE(word) ((word) & 7)
#define LAP(word) ((word) >> 7)
#define OWNER(index, epoch) ((index) << 3 | ((epoch) & EPOCH_MASK) << 5)
#define IS_OWNED(word) (STATE(word) == WRITING || STATE(word) == READING)
#define IS_OWNED_BY(word, index, epoch) \
  (IS_OWNED(word) && ((word) & 120) == OWNER(index, epoch))
#define TO(word, state) WORD(state, LAP(word))
#define NEXT_LAP(word) WORD(FREE, LAP(word) + 1)

/* Participants: state and epoch. FREE is 0, as above. */
#define ALIVE 1
#define DEAD 2
#define ENTRY(state, epoch) ((state) | (epoch) << 2)
#define ENTRY_STATE(entry) ((entry) & 3)
#define EPOCH(entry) ((entry) >> 2)

byte participant[WORKERS];
bit lock[WORKERS]; /* the kernel's */

/* What must never be, by name: spin prints what is in the assert. */
hidden byte verdict_corrupt; /* where the code returns kCorrupt */
hidden byte fenced_alive;    /* something is taken from a living owner */
hidden byte stuck;           /* a lone survivor cannot go on */
#define FAIL(what) \
  what = 1; \
  assert(!what)

/* What must happen in some run, or the checks would be of nothing: spin_test.py
 * wants to see the name of each. */
#define MEET(what) \
  c_code { static int met; if (!met) printf("met: " #what "\n"); met = 1; }

#if LOST_LOCKS
#define MEET_FENCED(what) MEET(fenced_##what)
#else
#define MEET_FENCED(what) skip
#endif

/* What only the checks know. Messages have ids from 1; sets of them are bits. */
#define TORN 255
#define BIT(id) (1 << (id))
byte crashes;
byte lost_locks;
bit busy[WORKERS];    /* within an operation */
bit leaving[WORKERS]; /* about to detach */
byte reaping;         /* reapers within an operation */

/* One step of a worker is
 *   if
 *   :: d_step { access }   (one or more, as what is read decides what follows)
 *   OR_DIE
 *   fi
 */
#define DIE crashes++; lock[me] = 0; busy[me] = 0; leaving[me] = 0; FORGET
#define OR_DIE :: d_step { crashes < CRASHES -> DIE } goto attach
#define LOSE_LOCK \
  :: d_step { \
       lost_locks < LOST_LOCKS && lock[me] -> lost_locks++; lock[me] = 0 \
     }

/* Two of a kind in the same state: the second one waits. */
#define IS_TWIN_IDLE(other) \
  (!reaping && !busy[other] && lock[other] && !leaving[other] && \
   participant[other] == participant[me])

/* The next incarnation. */
#define ATTACH \
  atomic { \
    ENTRY_STATE(participant[me]) == FREE -> lock[me] = 1; \
    epoch = EPOCH(participant[me]); \
    participant[me] = ENTRY(ALIVE, epoch) \
  }

/* A reaper's first step, by any participant that may be worth it, and its
 * death. It has the locals i, entry, s, word; FORGET_MORE zeroes others. */
#define PROBE(p) \
  :: d_step { \
       ENTRY_STATE(participant[p]) != FREE && (!lock[p] || leaving[p]) -> \
       i = p; \
       entry = participant[p]; \
       reaping++ \
     }
#if WORKERS == 2
#define PROBE_ANY PROBE(0) PROBE(1)
#elif WORKERS == 3
#define PROBE_ANY PROBE(0) PROBE(1) PROBE(2)
#else
#define PROBE_ANY PROBE(0) PROBE(1) PROBE(2) PROBE(3)
#endif
#define FORGET_REAPING reaping--; i = 0; entry = 0; s = 0; word = 0; FORGET_MORE
#define OR_DIE_REAPING \
  :: d_step { crashes < CRASHES -> crashes++; FORGET_REAPING } goto idle

/* Attachment::ReapOne as far as the sweep; goes to idle if there is none. */
#define MARK_DEAD \
  if \
  PROBE_ANY \
  fi; \
  if \
  :: ENTRY_STATE(entry) == DEAD -> goto sweep \
  :: d_step { ENTRY_STATE(entry) == ALIVE && lock[i] -> FORGET_REAPING } \
     goto idle \
  :: ENTRY_STATE(entry) == ALIVE && !lock[i] \
  OR_DIE_REAPING \
  fi; \
  if \
  :: d_step { \
       participant[i] == entry -> \
       entry = ENTRY(DEAD, EPOCH(entry)); \
       participant[i] = entry \
     } goto sweep \
  :: participant[i] != entry \
  OR_DIE_REAPING \
  fi; \
  if \
  :: d_step { ENTRY_STATE(participant[i]) == DEAD -> entry = participant[i] } \
  :: d_step { ENTRY_STATE(participant[i]) != DEAD -> FORGET_REAPING } \
     goto idle \
  OR_DIE_REAPING \
  fi

/* A sweep gives up if another reaper has completed it. */
#define STILL_MARKED \
  if \
  :: participant[i] == entry \
  :: d_step { participant[i] != entry -> FORGET_REAPING } goto idle \
  OR_DIE_REAPING \
  fi

#define FREE_PARTICIPANT \
  if \
  :: participant[i] == entry -> participant[i] = ENTRY(FREE, EPOCH(entry) + 1) \
  :: else \
  fi

#define IS_CALM(p) \
  (!busy[p] && (lock[p] || ENTRY_STATE(participant[p]) == FREE))
#if WORKERS == 2
#define ARE_ALL_CALM (!reaping && IS_CALM(0) && IS_CALM(1))
#elif WORKERS == 3
#define ARE_ALL_CALM (!reaping && IS_CALM(0) && IS_CALM(1) && IS_CALM(2))
#else
#define ARE_ALL_CALM \
  (!reaping && IS_CALM(0) && IS_CALM(1) && IS_CALM(2) && IS_CALM(3))
#endif

/* Brings PRODUCERS and CONSUMERS to life, attached, and REAPERS. */
inline StartAll() {
  d_step {
    i = 0;
    do
    :: i < WORKERS -> lock[i] = 1; participant[i] = ENTRY(ALIVE, 0); i++
    :: else -> break
    od;
    i = 0
  }
  atomic {
    do
    :: i < PRODUCERS -> run Producer(i); i++
    :: i >= PRODUCERS && i < WORKERS -> run Consumer(i); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < REAPERS -> run Reaper(); i++
    :: else -> break
    od;
    run Survivor();
    i = 0
  }
}
