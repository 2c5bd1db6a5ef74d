/* The slot machine of a queue, for the model checker spin (spinroot.com): all
 * interleavings of ipc/mqueue/slot_ring.cc and ipc/base/participants.cc at
 * small bounds, with a death or a lost lock before any step.
 *
 * Each access to shared memory is a step of its own, as are the two halves of
 * writing a message. Memory is sequentially consistent, as the code asks for.
 * What is done with a value that was loaded is an alternative for each value,
 * and a CAS has two: it succeeds, or it fails.
 *
 * What dies: a producer or a consumer at any step (it drops its lock, and a
 * later incarnation attaches at the same index, once that is free), a reaper at
 * any step (the next one starts anew): CRASHES of them in one run. And a
 * process that closed descriptors it does not own loses its lock alone, before
 * its commit: it is dead to the others, and still tries. LOST_LOCKS of these.
 *
 * What is checked:
 * - A message whose send has committed is delivered once: never twice, never
 *   torn, never before its commit, never out of order, and not lost (below).
 * - The verdicts "corrupt" of slot_ring.cc are never true.
 * - Of every reachable state: invariant 1 of slot_ring.h; and if all processes
 *   were killed right now, a lone survivor would reap them, receive all that
 *   was sent and not received, in bounded steps, find every slot free and fill
 *   the ring again. The same without killing and reaping anybody, where nobody
 *   is within an operation: nothing waits for a later death to be found.
 *   So there is no deadlock, no slot is owned for ever and no message is lost.
 *
 * What is left out: HealOrphan, which is for peers that break the rules;
 * sleeping and waking, see doorbell.pml: who finds the ring full or empty looks
 * again at any time; that a reaper helps the positions forward, as the next
 * producer or consumer would with the same CAS; what consists of the steps that
 * are here, as to overwrite (to receive for nobody, then to send), batches, and
 * lanes, each of which is such a ring; prefetching, and writing to a line what
 * it holds, as they change nothing; polling, see poller.h; statistics.
 *
 * To keep the states few:
 * - Positions start at the last lap before the wrap-around.
 * - A reaper looks at a participant only if it is about to leave the table or
 *   has lost its lock: looking earlier would have shown the same word.
 * - Which of two idle processes moves first does not matter, if they are in the
 *   same state: it is the one with the lower index.
 * - Locals are zeroed where their values have no further use.
 */

/* The bounds. IDs fit in a short, epochs and CRASHES in EPOCH_MASK. */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef REAPERS
#define REAPERS 1
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef MESSAGES
#define MESSAGES 2 /* sends that get as far as a slot, by any producer */
#endif
#ifndef SENT
#define SENT 0 /* of them, before it begins: not more than SLOTS */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LOST_LOCKS
#define LOST_LOCKS 0
#endif
#ifndef PUTBACKS
#define PUTBACKS 0 /* messages that their consumer gives back */
#endif
/* CLOSE: somebody closes the queue, at any time.
 * LOOK: who has to wait looks first whether the ring is damaged. */

/* The flaws, which the checks must find:
 * BLIND_COMMIT    stores instead of a CAS at the commits
 * BLIND_CLEAR     clears `requeued` whatever its version is now
 * SILENT_REAPER   never announces what it has put back
 * FREE_FIRST      frees a dead participant's index before the sweep
 * TAIL_FIRST      with LOOK: the tail is read before the head
 * EPOCH_MASK=0    an owner is known by its index only
 */

#include "base.pml"

hidden byte looks_damaged; /* what a waiter finds where all keep to the rules */

#define FIRST_LAP 7
#define FIRST (FIRST_LAP * SLOTS)
#define AHEAD(word, position) \
  (((LAP(word) - (position) / SLOTS + LAPS / 2) & (LAPS - 1)) - LAPS / 2)

/* What is in the segment. */
short slot[SLOTS];
byte message[SLOTS];
byte head = FIRST;
byte tail = FIRST + SENT;
byte requeued;
bit closed;

/* What only the checks know. */
byte ids = 1 + SENT;     /* of the next message: they count positions claimed */
byte last_taken;         /* id of the last message claimed at the head */
short sent;              /* set of ids */
short received;          /* set of ids */
byte true_lap[SLOTS];    /* not modulo LAPS */
byte putbacks;

#define SLOT(position) slot[(position) % SLOTS]
#define SEEN(position, ahead, state) \
  (AHEAD(SLOT(position), position) == ahead && STATE(SLOT(position)) == state)

#define IS_IN_USE(word) \
  (STATE(word) == WRITING || STATE(word) == READY || STATE(word) == READING || \
   STATE(word) == REQ)

#define HELP(hint, from) if :: hint == from -> hint++ :: else fi

inline Recycle(i, word) {
  if
  :: slot[i] == word -> slot[i] = NEXT_LAP(word); true_lap[i]++; message[i] = 0
  :: else
  fi
}

inline CheckDelivered(id, set) {
  assert(id != TORN && id != 0);
  assert(sent & BIT(id));
  assert(!(set & BIT(id)));
  MEET(delivered);
  set = set | BIT(id)
}

/* What a worker does that has to wait (WAIT), and goes on with (WAITED). */
#ifdef LOOK
/* Before, the first look of SlotRing::LooksDamaged: as it finds nothing, the
 * second one need not. A worker has the locals h, t and word. */
#ifdef TAIL_FIRST
#define LOAD_ENDS \
  if \
  :: d_step { true -> t = tail } \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> h = head } \
  OR_DIE \
  fi
#else
#define LOAD_ENDS \
  if \
  :: d_step { true -> h = head } \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> t = tail } \
  OR_DIE \
  fi
#endif
#define LOOKS_DAMAGED \
  LOAD_ENDS; \
  if \
  :: d_step { SEEN(h, 0, FREE) && (t == h || t == h - 1) -> WAIT } goto WAITED \
  :: d_step { !SEEN(h, 0, FREE) && h <= t - SLOTS -> WAIT } goto WAITED \
  :: d_step { \
       SEEN(h, 0, FREE) && !(t == h || t == h - 1) -> FAIL(looks_damaged) \
     } \
  :: !SEEN(h, 0, FREE) && h > t - SLOTS \
  OR_DIE \
  fi; \
  if \
  :: d_step { \
       SEEN(t, -1, WRITING) || SEEN(t, -1, READY) -> FAIL(looks_damaged) \
     } \
  :: d_step { !(SEEN(t, -1, WRITING) || SEEN(t, -1, READY)) -> WAIT } \
     goto WAITED \
  OR_DIE \
  fi
#define BLOCK FORGET
#define BLOCKED look
#define FORGET t = 0; h = 0; word = 0
#else
#define BLOCK WAIT
#define BLOCKED WAITED
#define FORGET t = 0; word = 0
#endif

#define WAIT FORGET
#define WAITED begin_send

proctype Producer(byte me) {
  byte epoch;
  byte t;
#ifdef LOOK
  byte h;
#endif
  short word;
  goto idle;

attach:
  ATTACH;

idle:
  atomic {
    if
    :: ids <= MESSAGES && !(me == 1 && IS_TWIN_IDLE(0)) -> busy[me] = 1
    :: ids > MESSAGES && !(me == 1 && IS_TWIN_IDLE(0)) ->
       leaving[me] = 1;
       goto detach
    fi;
#ifdef CLOSE
    if
    :: closed -> busy[me] = 0; leaving[me] = 1; goto detach
    :: !closed -> goto load_tail
    fi
#else
    t = tail;
    goto load_slot
#endif
  };

begin_send:
#ifdef CLOSE
  if
  :: d_step { closed -> busy[me] = 0; leaving[me] = 1 } goto detach
  :: !closed
  OR_DIE
  fi;
#endif
load_tail:
  if
  :: d_step { true -> t = tail }
  OR_DIE
  fi;
load_slot:
  if
  :: AHEAD(SLOT(t), t) > 0 -> goto help
  :: AHEAD(SLOT(t), t) == 0 && STATE(SLOT(t)) != FREE &&
     STATE(SLOT(t)) != END -> goto help
  :: d_step { SEEN(t, 0, FREE) -> word = SLOT(t) } goto claim
  :: d_step { SEEN(t, 0, END) -> FORGET; busy[me] = 0; leaving[me] = 1 }
     goto detach
  :: d_step { AHEAD(SLOT(t), t) < 0 -> word = SLOT(t) } goto behind
  OR_DIE
  fi;

help:
  if
  :: d_step { true -> HELP(tail, t); FORGET } goto begin_send
  OR_DIE
  fi;

behind:
  if
  :: d_step { tail != t -> FORGET } goto begin_send
  :: d_step {
       tail == t && IS_IN_USE(word) -> assert(AHEAD(word, t) == -1);
       MEET(full);
       BLOCK
     } goto BLOCKED
  :: tail == t && STATE(word) == SKIP -> goto recycle
  :: d_step {
       tail == t && (STATE(word) == FREE || STATE(word) == END) ->
       FAIL(verdict_corrupt)
     }
  OR_DIE
  fi;

#ifdef LOOK
look:
  LOOKS_DAMAGED;
#endif

recycle:
  if
  :: d_step {
       true -> assert(AHEAD(word, t) == -1);
       MEET(recycled_by_producer);
       Recycle(t % SLOTS, word);
       word = 0
     }
  OR_DIE
  fi;
  if
  :: d_step { true -> HELP(head, t - SLOTS); FORGET } goto begin_send
  OR_DIE
  fi;

claim:
  if
  :: d_step {
       SLOT(t) == word && ids <= MESSAGES ->
       assert(true_lap[t % SLOTS] * SLOTS + t % SLOTS == t);
       word = TO(word, WRITING) | OWNER(me, epoch);
       SLOT(t) = word;
       message[t % SLOTS] = TORN; /* the first half of it */
       ids++
     }
  :: d_step { SLOT(t) != word -> FORGET } goto begin_send
  /* The others have used up what may be sent in this run. */
  :: d_step { SLOT(t) == word && ids > MESSAGES -> FORGET; busy[me] = 0 }
     goto idle
  OR_DIE
  fi;
  /* Fill */
  if
  :: d_step { true -> message[t % SLOTS] = t - FIRST + 1 }
  OR_DIE
  fi;

commit:
  if
  :: d_step {
       lock[me] && SLOT(t) == word ->
       SLOT(t) = TO(word, READY);
       sent = sent | BIT(message[t % SLOTS]);
       word = 0
     }
  :: d_step { lock[me] && SLOT(t) != word -> FAIL(fenced_alive) }
  LOSE_LOCK goto commit
  :: d_step {
       !lock[me] ->
#ifdef BLIND_COMMIT
       SLOT(t) = TO(word, READY);
       sent = sent | BIT(message[t % SLOTS]);
#else
       if
       :: SLOT(t) == word ->
          SLOT(t) = TO(word, READY);
          sent = sent | BIT(message[t % SLOTS])
       :: else ->
          MEET_FENCED(send)
       fi;
#endif
       word = 0
     }
  OR_DIE
  fi;
  if
  :: d_step { lock[me] -> HELP(tail, t); FORGET; busy[me] = 0 } goto idle
  :: d_step { !lock[me] -> HELP(tail, t); FORGET; busy[me] = 0 } goto attach
  OR_DIE
  fi;

detach:
  if
  :: d_step {
       true -> assert(participant[me] == ENTRY(ALIVE, epoch));
       participant[me] = ENTRY(FREE, epoch + 1);
       leaving[me] = 0; epoch = 0
     }
  OR_DIE
  fi;
  lock[me] = 0
}

#undef FORGET
#ifdef LOOK
#define FORGET \
  h = 0; t = 0; i = 0; version = 0; word = 0; id = 0; is_forced = 0
#else
#define FORGET h = 0; i = 0; version = 0; word = 0; id = 0; is_forced = 0
#endif
#undef WAIT
#undef WAITED
#define WAIT FORGET; busy[me] = 0
#define WAITED idle

proctype Consumer(byte me) {
  byte epoch;
  byte h;
#ifdef LOOK
  byte t;
#endif
  byte i;
  byte version;
  short word;
  byte id;
  bit is_forced; /* TakeRequeued without the flag */
  goto idle;

attach:
end_attach:
  ATTACH;

idle:
end_idle:
  atomic {
    !(me == PRODUCERS + 1 && IS_TWIN_IDLE(PRODUCERS)) ->
    busy[me] = 1;
    if
    :: (requeued & 1) == 1 -> goto take_requeued
    :: (requeued & 1) == 0 -> goto at_head
    fi
  };

begin_receive:
  if
  :: (requeued & 1) == 1
  :: (requeued & 1) == 0 -> goto at_head
  OR_DIE
  fi;

take_requeued:
  if
  :: d_step { true -> version = requeued }
  OR_DIE
  fi;
  if
  :: d_step { true -> h = head % SLOTS }
  OR_DIE
  fi;
scan:
  if
  :: d_step { i < SLOTS - 1 && STATE(SLOT(h + i)) != REQ -> i++ } goto scan
  :: d_step { i == SLOTS - 1 && STATE(SLOT(h + i)) != REQ -> h = 0; i = 0 }
     goto clear
  :: d_step {
       STATE(SLOT(h + i)) == REQ ->
       h = (h + i) % SLOTS;
       word = slot[h]
     }
  OR_DIE
  fi;
  if
  :: d_step {
       slot[h] == word ->
       word = TO(word, READING) | OWNER(me, epoch);
       slot[h] = word;
       MEET(redelivered);
       i = 0; version = 0; is_forced = 0
     } goto taken
  :: d_step { slot[h] != word -> word = 0; h = (h + SLOTS - i) % SLOTS }
  OR_DIE
  fi;
  if
  :: d_step { i < SLOTS - 1 -> i++ } goto scan
  :: d_step { i == SLOTS - 1 -> h = 0; i = 0 }
  fi;
clear:
  if
  :: d_step {
       true ->
       if
#ifdef BLIND_CLEAR
       :: version & 1 -> requeued = (requeued | 1) - 1
#else
       :: (version & 1) && requeued == version -> MEET(cleared); requeued--
#endif
       :: else
       fi;
       version = 0
     }
  OR_DIE
  fi;
  if
  :: d_step { is_forced -> is_forced = 0 } goto begin_receive
  :: !is_forced
  fi;

at_head:
  if
  :: d_step { true -> h = head }
  OR_DIE
  fi;
  if
  :: AHEAD(SLOT(h), h) > 0 -> goto help
  :: SEEN(h, 0, READING) -> goto help
  :: d_step { SEEN(h, 0, READY) || SEEN(h, 0, REQ) -> word = SLOT(h) }
     goto claim
  :: d_step { SEEN(h, 0, SKIP) -> word = SLOT(h) } goto recycle
  :: d_step { SEEN(h, 0, WRITING) || SEEN(h, 0, FREE) -> word = SLOT(h) }
#ifdef CLOSE
  :: SEEN(h, 0, END) -> goto at_end
#endif
  :: d_step { AHEAD(SLOT(h), h) < 0 -> word = SLOT(h) }
  OR_DIE
  fi;
  if
  :: d_step { head != h -> FORGET } goto begin_receive
  /* Nothing to receive now. */
  :: d_step {
       head == h &&
       ((AHEAD(word, h) == 0 && STATE(word) == WRITING) ||
        (AHEAD(word, h) == -1 && STATE(word) == READING)) ->
       BLOCK
     } goto BLOCKED
  :: d_step {
       head == h && AHEAD(word, h) == -1 && STATE(word) == REQ ->
       FORGET; is_forced = 1
     } goto take_requeued
#ifdef CLOSE
  :: head == h && AHEAD(word, h) == 0 && STATE(word) == FREE
#else
  :: d_step {
       head == h && AHEAD(word, h) == 0 && STATE(word) == FREE -> BLOCK
     } goto BLOCKED
#endif
  :: d_step {
       head == h && AHEAD(word, h) < 0 && STATE(word) != READING &&
       STATE(word) != REQ ->
       FAIL(verdict_corrupt)
     }
  OR_DIE
  fi;
#ifdef CLOSE
  if
  :: closed
  :: d_step { !closed -> BLOCK } goto BLOCKED
  OR_DIE
  fi;
  if
  :: d_step {
       true ->
       if :: SLOT(h) == word -> SLOT(h) = TO(word, END) :: else fi;
       FORGET
     } goto begin_receive
  OR_DIE
  fi;
#endif
#ifdef LOOK
look:
  LOOKS_DAMAGED;
#endif

#ifdef CLOSE
at_end:
  if
  :: d_step {
       i < SLOTS - 1 && STATE(slot[i]) != READING && STATE(slot[i]) != REQ ->
       i++
     } goto at_end
  :: d_step {
       i == SLOTS - 1 && STATE(slot[i]) != READING && STATE(slot[i]) != REQ ->
       assert(received == sent); /* closed and drained */
       MEET(drained);
       FORGET; busy[me] = 0
     } goto end_drained
  :: d_step { STATE(slot[i]) == READING -> FORGET; busy[me] = 0 } goto idle
  :: d_step { STATE(slot[i]) == REQ -> FORGET; is_forced = 1 }
     goto take_requeued
  OR_DIE
  fi;
#endif

help:
  if
  :: d_step { true -> HELP(head, h); FORGET } goto begin_receive
  OR_DIE
  fi;

recycle:
  if
  :: d_step {
       true -> MEET(recycled_by_consumer);
       Recycle(h % SLOTS, word);
       word = 0
     } goto help
  OR_DIE
  fi;

claim:
  if
  :: d_step {
       SLOT(h) == word ->
       assert(true_lap[h % SLOTS] * SLOTS + h % SLOTS == h);
       assert(STATE(word) == REQ || message[h % SLOTS] > last_taken);
       if :: STATE(word) == READY -> last_taken = message[h % SLOTS] :: else fi;
       word = TO(word, READING) | OWNER(me, epoch);
       SLOT(h) = word
     }
  :: d_step { SLOT(h) != word -> FORGET } goto begin_receive
  OR_DIE
  fi;
  if
  :: d_step { true -> HELP(head, h); h = h % SLOTS }
  OR_DIE
  fi;

taken:
  if
  :: d_step { true -> id = message[h] }
  OR_DIE
  fi;

commit:
  if
  :: d_step {
       lock[me] && slot[h] == word ->
       Recycle(h, word);
       CheckDelivered(id, received);
       FORGET; busy[me] = 0
     } goto idle
#if PUTBACKS
  :: d_step {
       lock[me] && slot[h] == word && putbacks < PUTBACKS ->
       putbacks++;
       slot[h] = TO(word, REQ);
       MEET(put_back);
       FORGET
     } goto announce
#endif
  :: d_step { lock[me] && slot[h] != word -> FAIL(fenced_alive) }
  LOSE_LOCK goto commit
  :: d_step {
       !lock[me] ->
       if
#ifdef BLIND_COMMIT
       :: true ->
          slot[h] = word;
#else
       :: slot[h] == word ->
#endif
          Recycle(h, word);
          CheckDelivered(id, received)
       :: else ->
          MEET_FENCED(receive)
       fi;
       FORGET; busy[me] = 0
     } goto attach
  OR_DIE
  fi;

#if PUTBACKS
announce:
  if
  :: d_step { true -> requeued = requeued + 2 }
  OR_DIE
  fi;
  if
  :: d_step { true -> requeued = requeued | 1; busy[me] = 0 } goto idle
  OR_DIE
  fi;
#endif

#ifdef CLOSE
end_drained:
  false
#endif
}

#define FORGET_MORE skip

proctype Reaper() {
  byte i;
  byte entry;
  byte s;
  short word;

idle:
end_idle:
  MARK_DEAD;

sweep:
#ifdef FREE_FIRST
  if
  :: d_step { true -> FREE_PARTICIPANT }
  OR_DIE_REAPING
  fi;
#endif
next_slot:
  if
  :: d_step {
       s < SLOTS - 1 && !IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> s++
     } goto next_slot
  :: d_step {
       s == SLOTS - 1 && !IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> s = 0
     } goto announce
  :: d_step { IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> word = slot[s] }
  OR_DIE_REAPING
  fi;
#ifndef FREE_FIRST
  STILL_MARKED;
#endif
  if
  :: d_step {
       true ->
       if
       :: slot[s] == word && STATE(word) == READING -> slot[s] = TO(word, REQ)
       :: slot[s] == word && STATE(word) == WRITING -> slot[s] = TO(word, SKIP)
       :: else
       fi;
       word = 0; s++
     }
  OR_DIE_REAPING
  fi;
  if
  :: s < SLOTS -> goto next_slot
  :: d_step { s == SLOTS -> s = 0 }
  fi;

announce:
#ifndef SILENT_REAPER
  if
  :: d_step { true -> requeued = requeued + 2 }
  OR_DIE_REAPING
  fi;
  if
  :: d_step { true -> requeued = requeued | 1 }
  OR_DIE_REAPING
  fi;
#endif
  if
  :: d_step {
       true -> FREE_PARTICIPANT;
       FORGET_REAPING
     } goto idle
  OR_DIE_REAPING
  fi
}

/* Looks at each reachable state. Works on a copy that is no part of the state,
 * so that it comes back to the state it began with. */
hidden short slot_[SLOTS];
hidden short word_;
hidden short received_;
hidden byte head_;
hidden byte tail_;
hidden byte requeued_;
hidden byte i_;
hidden byte s_;
hidden byte steps_;
hidden byte is_done_;

#define MAX_STEPS (4 * SLOTS + 8)

inline CheckInvariants() {
  i_ = 0;
  do
  :: i_ < SLOTS ->
     assert(LAP(slot[i_]) == true_lap[i_] % LAPS);
     assert(STATE(slot[i_]) != FREE || tail <= true_lap[i_] * SLOTS + i_);
     assert(STATE(slot[i_]) == READING || STATE(slot[i_]) == REQ ||
            head <= true_lap[i_] * SLOTS + i_);
     i_++
  :: else -> break
  od
}

inline Copy() {
  i_ = 0;
  do
  :: i_ < SLOTS -> slot_[i_] = slot[i_]; i_++
  :: else -> break
  od;
  head_ = head; tail_ = tail; requeued_ = requeued; received_ = received
}

inline ReapAllInCopy() {
  i_ = 0;
  do
  :: i_ < WORKERS ->
     s_ = 0;
     do
     :: s_ < SLOTS ->
        if
        :: ENTRY_STATE(participant[i_]) != FREE &&
           IS_OWNED_BY(slot_[s_], i_, EPOCH(participant[i_])) ->
           if
           :: STATE(slot_[s_]) == READING -> slot_[s_] = TO(slot_[s_], REQ)
           :: else -> slot_[s_] = TO(slot_[s_], SKIP)
           fi
        :: else
        fi;
        s_++
     :: else -> break
     od;
     i_++
  :: else -> break
  od;
  requeued_ = (requeued_ + 2) | 1
}

#define DELIVER_FROM_COPY \
  slot_[s_] = NEXT_LAP(slot_[s_]); \
  CheckDelivered(message[s_], received_)

inline ReceiveAllFromCopy() {
  steps_ = 0;
  is_done_ = 0;
  do
  :: is_done_ -> break
  :: else ->
     steps_++;
     assert(steps_ <= MAX_STEPS);
     if
     :: requeued_ & 1 ->
        i_ = 0;
        do
        :: i_ == SLOTS -> requeued_--; break
        :: i_ < SLOTS && STATE(slot_[(head_ + i_) % SLOTS]) == REQ ->
           s_ = (head_ + i_) % SLOTS;
           DELIVER_FROM_COPY;
           break
        :: else -> i_++
        od
     :: else ->
        s_ = head_ % SLOTS;
        word_ = slot_[s_];
        if
        :: AHEAD(word_, head_) > 0 -> head_++
        :: AHEAD(word_, head_) == 0 ->
           if
           :: STATE(word_) == READY || STATE(word_) == REQ ->
              DELIVER_FROM_COPY; head_++
           :: STATE(word_) == SKIP -> slot_[s_] = NEXT_LAP(word_); head_++
           :: STATE(word_) == FREE && closed -> slot_[s_] = TO(word_, END)
           :: STATE(word_) == FREE && !closed ->
              assert(tail_ == head_ || tail_ == head_ - 1);
              is_done_ = 1
           :: STATE(word_) == END -> is_done_ = 1
           :: else -> FAIL(stuck)
           fi
        :: else -> FAIL(stuck)
        fi
     fi
  od;
  assert(received_ == sent);
  i_ = 0;
  do
  :: i_ < SLOTS ->
     assert(STATE(slot_[i_]) == FREE || (closed && STATE(slot_[i_]) == END));
     i_++
  :: else -> break
  od
}

inline FillCopy() {
  steps_ = 0;
  i_ = 0;
  do
  :: i_ == SLOTS || closed -> break
  :: else ->
     steps_++;
     assert(steps_ <= MAX_STEPS);
     s_ = tail_ % SLOTS;
     assert(AHEAD(slot_[s_], tail_) >= 0); /* else full */
     if
     :: AHEAD(slot_[s_], tail_) == 0 && STATE(slot_[s_]) == FREE ->
        slot_[s_] = TO(slot_[s_], READY);
        i_++
     :: else
     fi;
     tail_++
  od
}

proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       CheckInvariants();
       Copy();
       ReapAllInCopy();
       ReceiveAllFromCopy();
       FillCopy();
       if
       :: ARE_ALL_CALM ->
          MEET(calm);
          Copy();
          ReceiveAllFromCopy();
          FillCopy()
       :: else
       fi
     }
  od
}

#ifdef CLOSE
proctype Closer() { closed = 1 }
#endif

init {
  byte i;
  d_step {
    do
    :: i < SLOTS ->
       slot[i] = WORD(FREE, FIRST_LAP); true_lap[i] = FIRST_LAP;
       if
       :: i < SENT ->
          slot[i] = WORD(READY, FIRST_LAP);
          message[i] = i + 1;
          sent = sent | BIT(i + 1)
       :: else
       fi;
       i++
    :: else -> break
    od;
    i = 0
  }
#ifdef CLOSE
  run Closer();
#endif
  StartAll()
}
