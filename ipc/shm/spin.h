// How long to spin before a system call: parking and waking costs tens of
// microseconds, so a wait that is over by then should not park.
//
//   Spinner spinner;
//   while (!ready()) {
//     if (spinner.Spin()) continue;
//     park();
//     spinner = Spinner();
//   }
#ifndef IPC_SHM_SPIN_H_
#define IPC_SHM_SPIN_H_

namespace ipc::shm::internal {

class Spinner {
 public:
  // Pauses for a moment; false, at once, when it is time to park. On a single
  // CPU it always is.
  bool Spin();

 private:
  int count_ = 0;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_SPIN_H_
