/* The doorbell of ipc/mqueue/doorbell.h and the loop around it, QueueCore::Await
 * of queue_core.h, for the model checker spin: all interleavings at small
 * bounds, with a death before any step.
 *
 * Things are made by ringers and taken by waiters, as messages or room are:
 *
 *   waiter   (some go after the first thing, others come back for more)
 *            Announce: read `event` as ticket; `waiting` = 1
 *            look: take a thing, if there is one; if it has slept and there are
 *              more, Ring
 *            Sleep: unless `event` is not the ticket any more, until woken
 *   ringer   make a thing
 *            Ring: if `waiting`: clear it; raise `event`; wake one sleeper
 *
 * Each access to shared memory is a step of its own, as is each system call.
 *
 * What is checked of every reachable state: no wake-up is lost, that is: it is
 * never so that there is a thing, nobody is about to ring, and all waiters that
 * live sleep.
 *
 * With deaths that does come about: a ringer dies between its thing and its
 * Ring, or a waiter that was woken before it announces itself again. For these
 * there is the TICK, on which each sleeper looks by itself. Here it comes only
 * where a wake-up is lost, as it is slow; and then all things must be taken, as
 * long as anybody lives.
 */

#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef RINGERS
#define RINGERS 2
#endif
#ifndef THINGS
#define THINGS 3 /* by all ringers */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef TICK
#define TICK 0
#endif

/* The flaws, which the checks must find:
 * LOOK_FIRST  a waiter announces itself after it has looked, and sleeps
 * NO_PASS_ON  one that was woken does not ring for what else there is
 * CLEAR_LAST  Ring clears `waiting` when it has woken somebody
 * TICK=0 with CRASHES
 */

#define FAIL(what) \
  what = 1; \
  assert(!what)

/* As in base.pml. */
#define MEET(what) \
  c_code { static int met; if (!met) printf("met: " #what "\n"); met = 1; }

/* What is in the segment, and in the kernel. */
byte event;
bit waiting;
byte things;
bit asleep[WAITERS];

/* What only the checks know. */
hidden byte lost_wake_up;
byte made;
byte taken;
byte ringing; /* ringers within an operation */
bit gone[WAITERS]; /* dead, or has left with what it has taken */
byte crashes;

#if WAITERS == 2
#define ARE_ALL_DOWN ((asleep[0] || gone[0]) && (asleep[1] || gone[1]))
#define IS_ANY_ASLEEP (asleep[0] || asleep[1])
#else
#define ARE_ALL_DOWN \
  ((asleep[0] || gone[0]) && (asleep[1] || gone[1]) && (asleep[2] || gone[2]))
#define IS_ANY_ASLEEP (asleep[0] || asleep[1] || asleep[2])
#endif
#define IS_LOST (things > 0 && ringing == 0 && ARE_ALL_DOWN && IS_ANY_ASLEEP)

#define OR_DIE :: d_step { crashes < CRASHES -> crashes++; DIE } goto died

/* FUTEX_WAKE of one, whichever. */
#define WAKE_ONE \
  if \
  :: asleep[0] -> asleep[0] = 0; MEET(woken) \
  :: asleep[1] -> asleep[1] = 0 \
  WAKE_THIRD \
  :: else \
  fi
#if WAITERS == 2
#define WAKE_THIRD
#else
#define WAKE_THIRD :: asleep[2] -> asleep[2] = 0
#endif

#ifdef CLEAR_LAST
#define RING(done) \
  if \
  :: waiting == 0 -> goto done \
  :: waiting == 1 \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> event++ } \
  OR_DIE \
  fi; \
  if \
  :: atomic { true -> WAKE_ONE } \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> waiting = 0 } \
  OR_DIE \
  fi
#else
#define RING(done) \
  if \
  :: waiting == 0 -> goto done \
  :: waiting == 1 \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> waiting = 0 } \
  OR_DIE \
  fi; \
  if \
  :: d_step { true -> event++ } \
  OR_DIE \
  fi; \
  if \
  :: atomic { true -> WAKE_ONE } \
  OR_DIE \
  fi
#endif

#define DIE ringing--

proctype Ringer() {
end_idle:
  atomic {
    made < THINGS ->
    made++;
    ringing++
  };
  if
  :: d_step { true -> things++ }
  OR_DIE
  fi;
  RING(rung);
rung:
  ringing--;
  goto end_idle;

died:
end_died:
  false
}

#undef DIE
#define DIE gone[me] = 1; asleep[me] = 0; ticket = 0; slept = 0

proctype Waiter(byte me) {
  byte ticket;
  bit slept;

announce:
#ifdef LOOK_FIRST
  if
  :: d_step { things > 0 -> things--; taken++ } goto pass_on
  :: things == 0
  OR_DIE
  fi;
#endif
  if
  :: d_step { true -> ticket = event }
  OR_DIE
  fi;
  if
  :: d_step { true -> waiting = 1 }
  OR_DIE
  fi;
#ifndef LOOK_FIRST
  if
  :: d_step { things > 0 -> things--; taken++ } goto pass_on
  :: things == 0
  OR_DIE
  fi;
#endif
  if
  :: d_step { event == ticket -> asleep[me] = 1; ticket = 0 }
  :: d_step { event != ticket -> ticket = 0; slept = 1; MEET(kept_awake) }
     goto announce
  OR_DIE
  fi;

end_sleep:
  if
  :: d_step { !asleep[me] -> slept = 1 } goto announce
#if TICK
  :: d_step { asleep[me] && IS_LOST -> asleep[me] = 0; slept = 1; MEET(ticked) }
     goto announce
#endif
  OR_DIE
  fi;

pass_on:
  ticket = 0;
#ifndef NO_PASS_ON
  if
  :: !slept || things == 0 -> goto passed_on
  :: slept && things > 0 -> MEET(passed_on)
  OR_DIE
  fi;
  RING(passed_on);
#endif
passed_on:
  slept = 0;
  if
  :: goto announce
  :: d_step { true -> gone[me] = 1 } goto left
  fi;

left:
end_left:
  false;

died:
end_died:
  false
}

proctype Monitor() {
end:
  do
#if !TICK
  :: d_step { IS_LOST -> FAIL(lost_wake_up) }
#endif
  /* Whoever sleeps for good leaves nothing behind. */
  :: d_step {
       made == THINGS && ringing == 0 && things == 0 && ARE_ALL_DOWN &&
       IS_ANY_ASLEEP ->
       assert(taken <= THINGS);
       assert(CRASHES || taken == THINGS);
       MEET(all_taken)
     } goto end_of_all
  od;
end_of_all:
  false
}

init {
  byte i;
  atomic {
    do
    :: i < WAITERS -> run Waiter(i); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < RINGERS -> run Ringer(); i++
    :: else -> break
    od;
    run Monitor();
    i = 0
  }
}
