// The options and suppressions of AddressSanitizer, UndefinedBehaviorSanitizer
// and ThreadSanitizer, which their runtimes ask for by these names. The
// sanitizer configurations of .bazelrc link this into every program.
//
// ASAN_OPTIONS and the like, where set, still have the last word.
//
// A suppression says which of the system's libraries it is for and why. For our
// own code there is none: mend it.

// NOLINTBEGIN(readability-identifier-naming,misc-definitions-in-headers)
extern "C" {

const char* __asan_default_options() {
  return "detect_stack_use_after_return=1:strict_string_checks=1";
}

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

const char* __tsan_default_options() {
  return "second_deadlock_stack=1:history_size=4";
}

// gRPC and what it is made of are not instrumented: of how they order what they
// hand from thread to thread, ThreadSanitizer sees the mutexes (see
// tsan_absl.cc) but none of the atomics. A suppression is for each report in
// which the library is anywhere on the stack, so a race between two handlers is
// not seen here: test what they call without gRPC.
const char* __tsan_default_suppressions() {
  return "race:libgpr.so\n"
         "race:libgrpc.so\n"
         "race:libgrpc++.so\n"
         "race:libupb.so\n"
         // Status counts its references.
         "race:libabsl_status.so\n"
         // The deadlock detector of absl::Mutex, behind a spin lock of its own.
         "race:libabsl_graphcycles_internal.so\n"
         // Time zones are made once and published by an atomic.
         "race:libabsl_time.so\n"
         "race:libabsl_time_zone.so\n";
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming,misc-definitions-in-headers)
