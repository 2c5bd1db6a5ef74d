/* The blocks of large messages, for the model checker spin: all interleavings
 * at small bounds, with a death before any step.
 *
 * A block's word says who has it, and the generation of what is in it. In the
 * code each allocation takes the next one; here it is one more each time that
 * the block becomes FREE, which comes to the same and is one number less. A
 * slot carries a descriptor, {block, generation}. `me` is a participant
 * {index, epoch}:
 *
 *   send      block FREE(g) -> LOANED(me, g); fill it
 *             slot FREE -> WRITING(me); write the descriptor
 *             block LOANED(me, g) -> QUEUED(g)
 *             slot WRITING(me) -> READY                   the send commits here
 *   receive   slot READY|REQ -> READING(me); read the descriptor
 *             block QUEUED(g) -> HELD(me, g)
 *             slot READING(me) -> FREE, next lap        auto-ack commits here
 *   release   block HELD(me, g) -> FREE(g+1)               ack commits here
 *   nack      block HELD(me, g) -> REDELIVER(g); announce
 *   receive   (again) block REDELIVER(g) -> HELD(me, g)
 *   reaper    every slot WRITING(dead): read the descriptor, see that the slot
 *               is as it was, block QUEUED(g) -> FREE(g+1), slot -> SKIP
 *             every slot READING(dead): likewise, block HELD(dead, g) ->
 *               QUEUED(g), slot -> REQ
 *             only then every block LOANED(dead) -> FREE(g+1), HELD(dead) ->
 *               FREE(g+1), or REDELIVER(g) in explicit-ack mode
 *             announce; participant DEAD -> FREE
 *
 * All by CAS, each a step of its own here.
 *
 * What is checked:
 * - Auto-ack: a message whose send has committed is received once. Explicit ack
 *   (ACK): it is acknowledged once, and can be received until then.
 * - What is received is whole, and its block is in no other message.
 * - Of every reachable state: if all processes were killed right now, a lone
 *   survivor would reap them, receive all that is left, and find each slot and
 *   each block free. The same without killing and reaping anybody, where nobody
 *   is within an operation. So no block leaks.
 * - The end is told (AT_END, with ACK) only when all that was sent has been
 *   acknowledged: once the queue is closed and every slot is empty, who looks at
 *   each block once, as QueueCore::AtEnd does, finds those that are HELD or
 *   REDELIVER, wherever the messages go meanwhile and whoever dies.
 *
 * What is left out: that a sender may overwrite, which takes a message from its
 * slot as a receiver does, or by one CAS, REDELIVER(g) -> FREE(g+1). And as
 * slot_ring.pml has it: positions as hints (here, the slot at the head or the
 * tail is claimed in one step), laps that are mistaken for each other, leaving
 * the table. Runs of more than one block: the words behind the head are part of
 * it for as long as the head has their generation, and tell nothing else; two
 * that take overlapping runs, of whom one has to go back, are not here. A
 * generation is one more here when a block becomes free, in the code when it is
 * taken. And a living process that has lost its lock: between the reaper's two
 * steps, with the block and with the slot, it can still take its own, so that
 * the message it is just sending or receiving is lost, or its block leaks.
 */

#ifndef PRODUCERS
#define PRODUCERS 1
#endif
#ifndef CONSUMERS
#define CONSUMERS 1
#endif
#ifndef REAPERS
#define REAPERS 1
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef MESSAGES
#define MESSAGES 2 /* blocks loaned, by any producer */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef NACKS
#define NACKS 0
#endif
/* ACK: explicit-ack mode. AT_END: somebody waits for the end. */

/* The flaws, which the checks must find:
 * BLOCKS_FIRST    the reaper sweeps blocks before slots
 * NO_REREAD       it does not look at the slot again after the descriptor
 * NO_GENERATION   releasing a block leaves its generation as it was
 * QUIET_NACK      a nack announces nothing
 * TRUST_FLAG      the end is told if no block is HELD and then nothing announced
 * ZERO_DESCRIPTOR the descriptor of a new slot, all zero, names a generation
 *                 that its block has: the first one, also zero
 */

#define LOST_LOCKS 0
#include "base.pml"

#define FIRST_LAP 7

/* Of a slot that no sender has used yet: a generation that no block has had. */
#ifdef ZERO_DESCRIPTOR
#define NOBODYS DESCRIPTOR(0, WORD(FREE, FIRST_LAP))
#else
#define NOBODYS DESCRIPTOR(0, WORD(FREE, FIRST_LAP - 1))
#endif

/* Block words are made as slot words: a generation for the lap. */
#define LOANED WRITING
#define QUEUED READY
#define HELD READING
#define REDELIVER REQ
#ifdef NO_GENERATION
#define NEXT_GENERATION(word) WORD(FREE, LAP(word))
#else
#define NEXT_GENERATION(word) NEXT_LAP(word)
#endif

#define DESCRIPTOR(b, word) ((b) | LAP(word) << 2)
#define BLOCK_OF(descriptor) ((descriptor) & 3)
#define GENERATION_OF(descriptor) ((descriptor) >> 2)

/* What is in the segment. Generations and laps begin at the last one before the
 * wrap-around. */
short slot[SLOTS];
byte descriptor[SLOTS];
short block[BLOCKS];
byte message[BLOCKS];
byte head;
byte tail;
byte requeued;

/* What only the checks know. */
byte ids = 1;   /* of the next message */
short sent;     /* set of ids */
short received; /* set of ids; in explicit-ack mode, acknowledged */
byte nacks;


inline CheckWhole(id) {
  assert(id != TORN && id != 0);
  assert(sent & BIT(id))
}

inline CheckDelivered(id, set) {
  CheckWhole(id);
  assert(!(set & BIT(id)));
  MEET(delivered);
  set = set | BIT(id)
}

/* As the last step with a block: the message in it is gone. */
inline Free(b) {
  block[b] = NEXT_GENERATION(block[b]);
  message[b] = 0
}

#define FORGET b = 0; id = 0; mine = 0; s = 0; word = 0

proctype Producer(byte me) {
  byte epoch;
  byte b;
  byte id;
  short mine; /* the block's word */
  byte s;
  short word; /* the slot's */
  goto idle;

attach:
end_attach:
  ATTACH;

idle:
end_idle:
  atomic {
    ids <= MESSAGES && !(me == 1 && IS_TWIN_IDLE(0)) ->
    if
    :: STATE(block[0]) == FREE -> b = 0
    :: STATE(block[1]) == FREE -> b = 1
#if BLOCKS > 2
    :: STATE(block[2]) == FREE -> b = 2
#endif
    fi;
    busy[me] = 1;
    mine = TO(block[b], LOANED) | OWNER(me, epoch);
    block[b] = mine;
    message[b] = TORN; /* the first half of it */
    id = ids;
    ids++
  };
  if
  :: d_step { true -> message[b] = id; id = 0 }
  OR_DIE
  fi;

  if
  :: d_step {
       slot[tail % SLOTS] == WORD(FREE, FIRST_LAP + tail / SLOTS) ->
       s = tail % SLOTS;
       word = TO(slot[s], WRITING) | OWNER(me, epoch);
       slot[s] = word;
       tail++
     }
  OR_DIE
  fi;
  if
  :: d_step { true -> descriptor[s] = DESCRIPTOR(b, mine) }
  OR_DIE
  fi;

queue:
  if
  :: d_step {
       block[b] == mine ->
       mine = TO(mine, QUEUED);
       block[b] = mine
     } goto commit
  :: d_step { block[b] != mine -> FAIL(fenced_alive) }
  OR_DIE
  fi;

commit:
  if
  :: d_step {
       slot[s] == word ->
       slot[s] = TO(word, READY);
       sent = sent | BIT(message[b]);
       FORGET; busy[me] = 0
     } goto idle
  :: d_step { slot[s] != word -> FAIL(fenced_alive) }
  OR_DIE
  fi
}

#undef FORGET
#define FORGET s = 0; word = 0; b = 0; mine = 0; i = 0; version = 0; kept = 0

/* A consumer may keep one message while it receives others. */
#define NONE 0

proctype Consumer(byte me) {
  byte epoch;
  byte s;
  short word; /* the slot's */
  byte b;
  short mine; /* the block's word */
  byte i;
  byte version;
  short kept; /* the block's word, and in its low bits which one it is */
  goto idle;

attach:
end_attach:
  ATTACH;

idle:
end_idle:
  atomic {
    if
    :: !(me == PRODUCERS + 1 && IS_TWIN_IDLE(PRODUCERS)) &&
       (requeued & 1) == 1 ->
       busy[me] = 1; version = requeued; goto scan_slots
    :: !(me == PRODUCERS + 1 && IS_TWIN_IDLE(PRODUCERS)) &&
       slot[head % SLOTS] == WORD(READY, FIRST_LAP + head / SLOTS) ->
       busy[me] = 1;
       s = head % SLOTS;
       word = TO(slot[s], READING) | OWNER(me, epoch);
       slot[s] = word;
       head++;
       goto taken
    :: slot[head % SLOTS] == WORD(SKIP, FIRST_LAP + head / SLOTS) ->
       slot[head % SLOTS] = NEXT_LAP(slot[head % SLOTS]);
       MEET(recycled);
       head++;
       goto idle
    :: kept != NONE ->
       busy[me] = 1; b = kept & 3; mine = kept >> 2; kept = NONE; goto done
    fi
  };

  /* TakeRequeued */
scan_slots:
  if
  :: d_step { i < SLOTS && STATE(slot[i]) != REQ -> i++ } goto scan_slots
  :: d_step { i == SLOTS -> i = 0 } goto scan_blocks
  :: d_step {
       i < SLOTS && STATE(slot[i]) == REQ ->
       s = i;
       word = TO(slot[s], READING) | OWNER(me, epoch);
       slot[s] = word;
       MEET(requeued);
       i = 0; version = 0
     } goto taken
  OR_DIE
  fi;
scan_blocks:
  if
  :: d_step { i < BLOCKS && STATE(block[i]) != REDELIVER -> i++ }
     goto scan_blocks
  :: d_step { i == BLOCKS -> i = 0 }
#ifdef ACK
  :: d_step {
       i < BLOCKS && STATE(block[i]) == REDELIVER ->
       b = i;
       mine = TO(block[b], HELD) | OWNER(me, epoch);
       block[b] = mine;
       MEET(redelivered);
       i = 0; version = 0
     } goto holding
#endif
  OR_DIE
  fi;
  if
  :: d_step {
       true ->
       if :: requeued == version -> requeued-- :: else fi;
       version = 0; busy[me] = 0
     } goto idle
  OR_DIE
  fi;

taken:
  if
  :: d_step {
       true -> b = BLOCK_OF(descriptor[s]);
       mine = WORD(QUEUED, GENERATION_OF(descriptor[s]))
     }
  OR_DIE
  fi;

hold:
  if
  :: d_step {
       block[b] == mine ->
       mine = TO(mine, HELD) | OWNER(me, epoch);
       block[b] = mine
     } goto commit
  :: d_step { block[b] != mine -> FAIL(fenced_alive) }
  OR_DIE
  fi;

commit:
  if
  :: d_step {
       slot[s] == word ->
       slot[s] = NEXT_LAP(word);
#ifndef ACK
       CheckDelivered(message[b], received);
#endif
       s = 0; word = 0
     } goto holding
  :: d_step { slot[s] != word -> FAIL(fenced_alive) }
  OR_DIE
  fi;

holding:
  atomic {
    if
    :: kept == NONE ->
       kept = mine << 2 | b; b = 0; mine = 0; busy[me] = 0; goto idle
    :: goto done
    fi
  };

done:
  if
  :: d_step {
       block[b] == mine ->
       CheckWhole(message[b]);
#ifdef ACK
       CheckDelivered(message[b], received);
#endif
       Free(b);
       b = 0; mine = 0; busy[me] = 0
     } goto idle
#if NACKS
  :: d_step {
       block[b] == mine && nacks < NACKS ->
       nacks++;
       block[b] = TO(mine, REDELIVER);
       b = 0; mine = 0
     } goto announce
#endif
  :: d_step { block[b] != mine -> FAIL(fenced_alive) }
  OR_DIE
  fi;

#if NACKS
announce:
#ifndef QUIET_NACK
  if
  :: d_step { true -> requeued = requeued + 2 }
  OR_DIE
  fi;
  if
  :: d_step { true -> requeued = requeued | 1 }
  OR_DIE
  fi;
#endif
  atomic { busy[me] = 0; goto idle }
#endif
}

#define FORGET_MORE seen = 0

/* What becomes of a block whose owner has died. */
#define ABANDONED(word) \
  (STATE(word) == HELD && IS_ACK -> TO(word, REDELIVER) : NEXT_GENERATION(word))
#ifdef ACK
#define IS_ACK 1
#else
#define IS_ACK 0
#endif

#ifdef AT_END
#if PRODUCERS == 1
#define ARE_PRODUCERS_IDLE (!busy[0])
#else
#define ARE_PRODUCERS_IDLE (!busy[0] && !busy[1])
#endif

/* A receiver that has nothing itself, once no message can be sent any more. */
proctype Ender() {
  byte i;

end_open:
  ids > MESSAGES && ARE_PRODUCERS_IDLE;

next_slot:
end_slots:
  if
  :: d_step { i < SLOTS - 1 && STATE(slot[i]) == FREE -> i++ } goto next_slot
  :: d_step { i == SLOTS - 1 && STATE(slot[i]) == FREE -> i = 0 }
  fi;
next_block:
  if
  :: d_step {
       STATE(block[i]) == HELD ->
       MEET(held_at_end);
       i = 0
     } goto wait
#ifndef TRUST_FLAG
  :: d_step {
       STATE(block[i]) == REDELIVER ->
       MEET(returned_at_end);
       i = 0
     } goto wait
  :: d_step {
       STATE(block[i]) != HELD && STATE(block[i]) != REDELIVER -> i++
     }
#else
  :: d_step { STATE(block[i]) != HELD -> i++ }
#endif
  fi;
  if
  :: i < BLOCKS -> goto next_block
  :: d_step { i == BLOCKS -> i = 0 }
  fi;
#ifdef TRUST_FLAG
  if
  :: (requeued & 1) == 1 -> goto next_block
  :: (requeued & 1) == 0
  fi;
#endif
  d_step {
    assert(received == sent); /* closed and drained */
    MEET(ended)
  }
  goto done;

  /* To look again at once would show the same. */
wait:
end_wait:
  if
  :: STATE(block[0]) != HELD && STATE(block[1]) != HELD -> goto next_block
  fi;

done:
end_done:
  false
}
#endif

proctype Reaper() {
  byte i;
  byte entry;
  byte s;
  short word;
  byte seen; /* descriptor */

idle:
end_idle:
  MARK_DEAD;

sweep:
#ifdef BLOCKS_FIRST
  goto next_block;
#endif
next_slot:
  if
  :: d_step {
       s < SLOTS - 1 && !IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> s++
     } goto next_slot
  :: d_step {
       s == SLOTS - 1 && !IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> s = 0
     } goto slots_done
  :: d_step { IS_OWNED_BY(slot[s], i, EPOCH(entry)) -> word = slot[s] }
  OR_DIE_REAPING
  fi;
  STILL_MARKED;
  if
  :: d_step { true -> seen = descriptor[s] }
  OR_DIE_REAPING
  fi;
#ifndef NO_REREAD
  if
  :: d_step { slot[s] != word -> word = 0; seen = 0 } goto after_slot
  :: slot[s] == word
  OR_DIE_REAPING
  fi;
#endif
  if
  :: d_step {
       true ->
       if
       :: STATE(word) == WRITING &&
          block[BLOCK_OF(seen)] == WORD(QUEUED, GENERATION_OF(seen)) ->
          MEET(freed_queued);
          Free(BLOCK_OF(seen))
       :: STATE(word) == READING &&
          block[BLOCK_OF(seen)] ==
            (WORD(HELD, GENERATION_OF(seen)) | OWNER(i, EPOCH(entry))) ->
          MEET(requeued_held);
          block[BLOCK_OF(seen)] = WORD(QUEUED, GENERATION_OF(seen))
       :: else
       fi;
       seen = 0
     }
  OR_DIE_REAPING
  fi;
  if
  :: d_step {
       true ->
       if
       :: slot[s] == word && STATE(word) == READING -> slot[s] = TO(word, REQ)
       :: slot[s] == word && STATE(word) == WRITING -> slot[s] = TO(word, SKIP)
       :: else
       fi;
       word = 0
     }
  OR_DIE_REAPING
  fi;
after_slot:
  if
  :: d_step { s < SLOTS - 1 -> s++ } goto next_slot
  :: d_step { s == SLOTS - 1 -> s = 0 }
  fi;
slots_done:
#ifdef BLOCKS_FIRST
  goto announce;
#endif

next_block:
  if
  :: d_step {
       s < BLOCKS - 1 && !IS_OWNED_BY(block[s], i, EPOCH(entry)) -> s++
     } goto next_block
  :: d_step {
       s == BLOCKS - 1 && !IS_OWNED_BY(block[s], i, EPOCH(entry)) -> s = 0
     } goto blocks_done
  :: d_step { IS_OWNED_BY(block[s], i, EPOCH(entry)) -> word = block[s] }
  OR_DIE_REAPING
  fi;
  STILL_MARKED;
  if
  :: d_step {
       true ->
       if
       :: block[s] == word ->
          block[s] = ABANDONED(word);
          if
          :: STATE(block[s]) == FREE -> MEET(freed); message[s] = 0
          :: else
          fi
       :: else
       fi;
       word = 0
     }
  OR_DIE_REAPING
  fi;
  if
  :: d_step { s < BLOCKS - 1 -> s++ } goto next_block
  :: d_step { s == BLOCKS - 1 -> s = 0 }
  fi;
blocks_done:
#ifdef BLOCKS_FIRST
  goto next_slot;
#endif

announce:
  if
  :: d_step { true -> requeued = requeued + 2 }
  OR_DIE_REAPING
  fi;
  if
  :: d_step { true -> requeued = requeued | 1 }
  OR_DIE_REAPING
  fi;
  if
  :: d_step { true -> FREE_PARTICIPANT; FORGET_REAPING } goto idle
  OR_DIE_REAPING
  fi
}

/* Looks at each reachable state. Works on a copy that is no part of the state,
 * so that it comes back to the state it began with. */
hidden short slot_[SLOTS];
hidden short block_[BLOCKS];
hidden short received_;
hidden byte head_;
hidden byte p_;
hidden byte s_;
hidden byte b_;
hidden short word_;
hidden byte is_held_;
hidden byte block_lost;
hidden byte block_leaked;

inline Copy() {
  s_ = 0;
  do
  :: s_ < SLOTS -> slot_[s_] = slot[s_]; s_++
  :: else -> break
  od;
  b_ = 0;
  do
  :: b_ < BLOCKS -> block_[b_] = block[b_]; b_++
  :: else -> break
  od;
  head_ = head; received_ = received
}

inline SweepCopy(p) {
  s_ = 0;
  do
  :: s_ < SLOTS && IS_OWNED_BY(slot_[s_], p, EPOCH(participant[p])) ->
     b_ = BLOCK_OF(descriptor[s_]);
     word_ = WORD(QUEUED, GENERATION_OF(descriptor[s_]));
     if
     :: STATE(slot_[s_]) == WRITING ->
        if
        :: block_[b_] == word_ -> block_[b_] = NEXT_GENERATION(word_)
        :: else
        fi;
        slot_[s_] = TO(slot_[s_], SKIP)
     :: else ->
        if
        :: block_[b_] ==
             (TO(word_, HELD) | OWNER(p, EPOCH(participant[p]))) ->
           block_[b_] = word_
        :: else
        fi;
        slot_[s_] = TO(slot_[s_], REQ)
     fi;
     s_++
  :: s_ < SLOTS && !IS_OWNED_BY(slot_[s_], p, EPOCH(participant[p])) -> s_++
  :: else -> break
  od;
  b_ = 0;
  do
  :: b_ < BLOCKS ->
     if
     :: IS_OWNED_BY(block_[b_], p, EPOCH(participant[p])) ->
        block_[b_] = ABANDONED(block_[b_])
     :: else
     fi;
     b_++
  :: else -> break
  od
}

inline DeliverFromCopy() {
  b_ = BLOCK_OF(descriptor[s_]);
  if
  :: block_[b_] == WORD(QUEUED, GENERATION_OF(descriptor[s_]))
  :: else -> FAIL(block_lost)
  fi;
  CheckDelivered(message[b_], received_);
  block_[b_] = NEXT_GENERATION(block_[b_]);
  slot_[s_] = NEXT_LAP(slot_[s_])
}

inline ReceiveAllFromCopy(is_announced) {
  s_ = 0;
  do
  :: s_ < SLOTS ->
     if
     :: STATE(slot_[s_]) == REQ && is_announced -> DeliverFromCopy()
     :: else
     fi;
     s_++
  :: else -> break
  od;
  b_ = 0;
  do
  :: b_ < BLOCKS ->
     if
     :: STATE(block_[b_]) == REDELIVER && is_announced ->
        CheckDelivered(message[b_], received_);
        block_[b_] = NEXT_GENERATION(block_[b_])
     :: else
     fi;
     b_++
  :: else -> break
  od;
  do
  :: head_ == tail -> break
  :: else ->
     s_ = head_ % SLOTS;
     assert(LAP(slot_[s_]) == (FIRST_LAP + head_ / SLOTS) % LAPS);
     if
     :: STATE(slot_[s_]) == READY -> DeliverFromCopy()
     :: STATE(slot_[s_]) == SKIP -> slot_[s_] = NEXT_LAP(slot_[s_])
     :: else -> FAIL(stuck)
     fi;
     head_++
  od
}

/* But for what a live consumer keeps. */
inline CheckAllFree() {
  s_ = 0;
  do
  :: s_ < SLOTS -> assert(STATE(slot_[s_]) == FREE); s_++
  :: else -> break
  od;
  is_held_ = 0;
  b_ = 0;
  do
  :: b_ < BLOCKS ->
     if
     :: STATE(block_[b_]) == HELD -> is_held_ = 1
     :: STATE(block_[b_]) == FREE
     :: else -> FAIL(block_leaked)
     fi;
     b_++
  :: else -> break
  od;
  assert(received_ == sent || (is_held_ && IS_ACK))
}

proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       Copy();
       p_ = 0;
       do
       :: p_ < WORKERS ->
          if
          :: ENTRY_STATE(participant[p_]) != FREE -> SweepCopy(p_)
          :: else
          fi;
          p_++
       :: else -> break
       od;
       ReceiveAllFromCopy(1);
       CheckAllFree();
       assert(!is_held_);
       if
       :: ARE_ALL_CALM ->
          MEET(calm);
          Copy();
          ReceiveAllFromCopy(requeued & 1);
          CheckAllFree()
       :: else
       fi;
       is_held_ = 0
     }
  od
}

init {
  byte i;
  d_step {
    do
    :: i < SLOTS ->
       slot[i] = WORD(FREE, FIRST_LAP); descriptor[i] = NOBODYS; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < BLOCKS -> block[i] = WORD(FREE, FIRST_LAP); i++
    :: else -> break
    od;
    i = 0
  };
#ifdef AT_END
  run Ender();
#endif
  StartAll()
}
