/* What the models have in common: how they check. */

/* What must never be, by name: spin prints what is in the assert. */
#define FAIL(what) \
  what = 1; \
  assert(!what)

/* What must happen in some run, or the checks would be of nothing: spin_test.py
 * wants to see the name of each. */
#define MEET(what) \
  c_code { static int met; if (!met) printf("met: " #what "\n"); met = 1; }
