// The CPUs to measure on, and how far apart they are just now.
//
// The host of a virtual machine moves its CPUs. For seconds at a time two of
// them may share no cache, and a cache line then takes three times as long from
// one to the other; so the line's round trip stands beside every figure.
#ifndef TOOLS_BENCH_CPUS_H_
#define TOOLS_BENCH_CPUS_H_

#include <string>

namespace bench {

// How many CPUs this process may run on.
int CpuCount();
// Pins the calling process to the `i`-th of those, counted round and round.
// Before the first call, and in children, the set is the one at the start.
void PinTo(int i);
// The number that the kernel gives to this CPU.
int CpuNumber(int i);

// Nanoseconds for a cache line from the first of the CPUs to the second and
// back: two processes, an atomic word of each.
double CacheLineRoundTripNs();

// Processor, number of CPUs, kernel.
std::string DescribeMachine();

}  // namespace bench

#endif  // TOOLS_BENCH_CPUS_H_
