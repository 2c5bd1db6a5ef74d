/* The ring of ipc/pipe, for the model checker spin (spinroot.com): all
 * interleavings of ipc/pipe/ring_core.h and ring_end.h at small bounds, with a
 * death of either end before any step.
 *
 * Each access to shared memory is a step of its own, and so is each question to
 * the kernel. A record is one slot of SLOTS, so a position counts records.
 *
 * Memory is as on x86: a store waits in a buffer of its CPU, while later loads
 * of the same process may be done. Only where that matters: the stores of tail
 * and acked, before the load of waiting. Everything else is sequentially
 * consistent. A HeavyFence empties the buffers of both. That orders weaker than
 * those of x86 are enough is argued in the source.
 *
 * What dies: either end at any step, CRASHES times in one run; its buffer
 * reaches the memory, its lock is dropped. The next incarnation attaches then.
 *
 * The futex: the kernel compares the event again and sleeps, in one step. With
 * TICK, a sleep may also end by itself, at any time.
 *
 * What is checked:
 * - torn: who receives a record finds it written, and the one it should be.
 * - overwritten: no slot is written that a receiver may still read.
 * - acked_again: what was acknowledged is not received again.
 * - unmarked, marked_for_nothing: a record is marked as redelivered if and only
 *   if it had been handed out.
 * - lost_wakeup: without TICK, and if nobody dies, no end sleeps while there is
 *   something for it to do and the other one sleeps, too, or has finished.
 *
 * What is left out: closing, leaving, staged records, padding, several records
 * held at a time, garbage.
 */

/* The bounds. */
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef LAG
#define LAG 2 /* how far head may lag behind acked */
#endif
#ifndef MESSAGES
#define MESSAGES 4
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef TICK
#define TICK 1
#endif

/* The flaws, which the checks must find:
 * NO_FENCE           the sleeper has no fence executed
 * NO_RELOOK          the sleeper sleeps without another look
 * COMMIT_FIRST       tail is stored before the record is written
 * LATE_DELIVERED     delivered is stored after the record was handed out
 * FROM_HEAD          a successor begins at head, not at acked
 * EARLY_HEAD         head is published when a record is taken
 * QUIET_LAG          acked is not looked at, nor head published for a sleeper
 */

#include "base.pml"

/* What is in the segment, and the buffers before it. */
byte tail;
byte acked;
byte head;
byte delivered;
bit tail_buffered;
byte tail_buffer;
bit acked_buffered;
byte acked_buffer;
byte slot[SLOTS]; /* the number of the record + 1; 0: being written */
bit sender_waiting;
bit receiver_waiting;
byte sender_event;   /* modulo 4 */
byte receiver_event;

/* The kernel's. */
bit sender_asleep;
bit receiver_asleep;

/* What only the checks know. */
byte crashes;
byte handed;      /* the end of what any receiver was handed */
byte done;        /* the end of what was acknowledged */
bit sender_done;
bit receiver_done;

hidden byte torn;
hidden byte overwritten;
hidden byte acked_again;
hidden byte unmarked;
hidden byte marked_for_nothing;
hidden byte lost_wakeup;

#if CRASHES
#define MEET_CRASHED(what) MEET(what)
#else
#define MEET_CRASHED(what) skip
#endif

#define FLUSH_TAIL \
  if \
  :: tail_buffered -> tail = tail_buffer; tail_buffered = 0; tail_buffer = 0 \
  :: else \
  fi
#define FLUSH_ACKED \
  if \
  :: acked_buffered -> \
     acked = acked_buffer; acked_buffered = 0; acked_buffer = 0 \
  :: else \
  fi

#define OR_DIE(flush) \
  :: d_step { \
       crashes < CRASHES -> \
       crashes++; \
       flush; \
       FORGET \
     } goto attach

/* The CPUs, at some time. */
proctype Buffers() {
end:
  do
  :: d_step { tail_buffered -> FLUSH_TAIL }
  :: d_step { acked_buffered -> FLUSH_ACKED }
  od
}

#define FORGET at = 0; known = 0; ticket = 0; sender_asleep = 0
proctype Sender() {
  byte at;    /* the end of what is committed */
  byte known; /* a head, as far as it is known */
  byte ticket;

attach:
  if
  :: d_step { true -> FLUSH_TAIL; at = tail }
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: d_step { true -> known = head }
  OR_DIE(FLUSH_TAIL)
  fi;
  /* Announce: the one before may have died before it woke the other. */
  goto wake;

reserve:
  if
  :: at == MESSAGES -> sender_done = 1; goto end
  :: at != MESSAGES && at - known < SLOTS -> goto write
  :: at != MESSAGES && at - known >= SLOTS
  fi;
  if
  :: d_step { head > known -> known = head } goto reserve
  :: d_step { head <= known -> ticket = sender_event }
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: d_step { true -> sender_waiting = 1 }
  OR_DIE(FLUSH_TAIL)
  fi;
#ifndef NO_FENCE
  d_step { FLUSH_TAIL; FLUSH_ACKED };
#endif
#ifndef NO_RELOOK
  if
  :: d_step { head > known -> known = head; sender_waiting = 0 } goto reserve
#ifndef QUIET_LAG
  :: d_step {
       head <= known && acked > known ->
       MEET(looked_at_acked);
       known = acked; sender_waiting = 0
     } goto reserve
  :: head <= known && acked <= known
#else
  :: head <= known
#endif
  OR_DIE(FLUSH_TAIL)
  fi;
#endif
  if
  :: d_step { sender_event == ticket -> sender_asleep = 1; ticket = 0 }
  :: d_step { sender_event != ticket -> ticket = 0 } goto reserve
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: !sender_asleep -> MEET(sender_woken); goto reserve
#if TICK
  :: d_step { sender_asleep -> sender_asleep = 0 } goto reserve
#endif
  OR_DIE(FLUSH_TAIL)
  fi;

write:
#ifdef COMMIT_FIRST
  skip;
  d_step { FLUSH_TAIL; tail_buffered = 1; tail_buffer = at + 1 };
#endif
  if
  :: d_step {
       true ->
       if
       :: at >= SLOTS && done < at + 1 - SLOTS -> FAIL(overwritten)
       :: else
       fi;
       slot[at % SLOTS] = 0
     }
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: d_step { true -> slot[at % SLOTS] = at + 1 }
  OR_DIE(FLUSH_TAIL)
  fi;
#ifndef COMMIT_FIRST
  if
  :: d_step { true -> FLUSH_TAIL; tail_buffered = 1; tail_buffer = at + 1 }
  OR_DIE(FLUSH_TAIL)
  fi;
#endif
  at++;
wake:
  if
  :: !receiver_waiting -> goto reserve
  :: d_step { receiver_waiting -> receiver_waiting = 0 }
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: d_step {
       true -> FLUSH_TAIL; receiver_event = (receiver_event + 1) % 4
     }
  OR_DIE(FLUSH_TAIL)
  fi;
  if
  :: d_step { true -> receiver_asleep = 0 } goto reserve
  OR_DIE(FLUSH_TAIL)
  fi;
end:
  skip
}
#undef FORGET

#define FORGET \
  at = 0; known = 0; ticket = 0; published = 0; again = 0; receiver_asleep = 0
proctype Receiver() {
  byte at;        /* what was received, and, in between, acknowledged */
  byte known;     /* a tail, as far as it is known */
  byte published; /* what head is */
  byte again;     /* the end of what the one before had been handed */
  byte ticket;

attach:
  if
#ifdef FROM_HEAD
  :: d_step { true -> FLUSH_ACKED; at = head }
#else
  :: d_step { true -> FLUSH_ACKED; at = acked }
#endif
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { true -> again = delivered; known = at }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { true -> head = at; published = at }
  OR_DIE(FLUSH_ACKED)
  fi;
  goto wake;

receive:
  if
  :: at == MESSAGES -> receiver_done = 1; goto end
  :: at != MESSAGES && at < known -> goto take
  :: d_step {
       at != MESSAGES && at == known && published != at ->
       head = at; published = at
     }
  :: at != MESSAGES && at == known && published == at
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { tail > at -> known = tail } goto take
  :: d_step { tail <= at -> ticket = receiver_event }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { true -> receiver_waiting = 1 }
  OR_DIE(FLUSH_ACKED)
  fi;
#ifndef NO_FENCE
  d_step { FLUSH_TAIL; FLUSH_ACKED };
#endif
#ifndef NO_RELOOK
  if
  :: d_step { tail > at -> known = tail; receiver_waiting = 0 } goto take
  :: tail <= at
  OR_DIE(FLUSH_ACKED)
  fi;
#endif
  if
  :: d_step { receiver_event == ticket -> receiver_asleep = 1; ticket = 0 }
  :: d_step { receiver_event != ticket -> ticket = 0 } goto receive
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: !receiver_asleep -> MEET(receiver_woken); goto receive
#if TICK
  :: d_step { receiver_asleep -> receiver_asleep = 0 } goto receive
#endif
  OR_DIE(FLUSH_ACKED)
  fi;

take:
#ifdef EARLY_HEAD
  head = at + 1; published = at + 1;
#endif
#ifndef LATE_DELIVERED
  if
  :: d_step {
       true ->
       if
       :: at < done -> FAIL(acked_again)
       :: at >= done && at < handed && at >= again -> FAIL(unmarked)
       :: at >= done && at >= handed && at < again -> FAIL(marked_for_nothing)
       :: at >= done && at < handed && at < again -> MEET_CRASHED(marked)
       :: else
       fi;
       if
       :: at >= again -> delivered = at + 1
       :: else
       fi;
       if
       :: handed < at + 1 -> handed = at + 1
       :: else
       fi
     }
  OR_DIE(FLUSH_ACKED)
  fi;
#else
  if
  :: d_step {
       true ->
       if
       :: at < done -> FAIL(acked_again)
       :: at >= done && at < handed && at >= again -> FAIL(unmarked)
       :: else
       fi;
       if
       :: handed < at + 1 -> handed = at + 1
       :: else
       fi
     }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step {
       true ->
       if
       :: at >= again -> delivered = at + 1
       :: else
       fi
     }
  OR_DIE(FLUSH_ACKED)
  fi;
#endif
  /* Twice: while it is held, nobody may change it. */
  if
  :: slot[at % SLOTS] == at + 1
  :: d_step { slot[at % SLOTS] != at + 1 -> FAIL(torn) }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: slot[at % SLOTS] == at + 1
  :: d_step { slot[at % SLOTS] != at + 1 -> FAIL(torn) }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step {
       true ->
       FLUSH_ACKED;
       acked_buffered = 1; acked_buffer = at + 1;
       done = at + 1;
       at++
     }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: at - published < LAG
  :: d_step { at - published >= LAG -> FLUSH_ACKED; head = at; published = at }
  OR_DIE(FLUSH_ACKED)
  fi;
wake:
  if
  :: !sender_waiting -> goto receive
#ifdef QUIET_LAG
  :: sender_waiting && published != at -> goto receive
  :: d_step { sender_waiting && published == at -> sender_waiting = 0 }
#else
  :: d_step {
       sender_waiting ->
       FLUSH_ACKED; head = at; published = at; sender_waiting = 0
     }
#endif
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { true -> FLUSH_ACKED; sender_event = (sender_event + 1) % 4 }
  OR_DIE(FLUSH_ACKED)
  fi;
  if
  :: d_step { true -> sender_asleep = 0 } goto receive
  OR_DIE(FLUSH_ACKED)
  fi;
end:
  skip
}

/* Looks at each reachable state, and leaves it as it is. */
proctype Survivor() {
end:
  do
  :: d_step {
       true ->
       if
       :: (receiver_asleep && (sender_asleep || sender_done) &&
           (tail > done || tail_buffered)) ||
          (sender_asleep && (receiver_asleep || receiver_done) &&
           (acked_buffered || tail - acked < SLOTS)) ->
#if TICK
          MEET_CRASHED(left_to_the_tick)
#else
          FAIL(lost_wakeup)
#endif
       :: else
       fi;
       if
       :: sender_done && receiver_done -> MEET(all_received)
       :: else
       fi
     }
  od
}

init {
  atomic {
    run Buffers();
    run Sender();
    run Receiver();
    run Survivor()
  }
}
