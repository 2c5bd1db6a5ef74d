// An allocator that takes the same way each time, for operations that are cut
// up instruction by instruction (see kill_points.h). Which way malloc(3) of the
// C library takes, and which addresses it gives, depends on everything that was
// allocated and freed before, and so on how many cases the parent has made.
//
//   if (fork() == 0) {
//     UseRepeatableHeap();
//     auto text = std::make_unique<char[]>(100);  // always at the same address
//   }
//
// To link this in replaces malloc and free of the whole program, by the C
// library's until UseRepeatableHeap is called; see "Replacing malloc" in the
// manual of the GNU C Library.
#ifndef TESTS_TESTING_REPEATABLE_HEAP_H_
#define TESTS_TESTING_REPEATABLE_HEAP_H_

namespace ipc::testing {

// From now on this process takes its memory from one piece, from its beginning
// to its end, and gives none back. The piece has room for 64 MiB; a process
// that asks for more is aborted. Blocks from before remain good, and to free
// them does nothing. In a process that has several threads the addresses depend
// on who comes first.
void UseRepeatableHeap();

}  // namespace ipc::testing

#endif  // TESTS_TESTING_REPEATABLE_HEAP_H_
