// Where a guest finds tensors and leaves its own: a folder in memory.
#pragma once

#include <string>

#include "attn/core/result.hpp"

namespace attn {

// Below /dev/shm where there is one, else below the folder for temporary files. Held by a lock that ends with the process.
class GuestFolder {
 public:
  // Throws RemoteError where none can be made.
  GuestFolder();
  GuestFolder(const GuestFolder&) = delete;
  GuestFolder& operator=(const GuestFolder&) = delete;
  ~GuestFolder();

  const std::string& path() const { return path_; }

  // The bytes of a file that the guest says to have left. Refused: a name that leads elsewhere, what is no file, and more than
  // `most_bytes`.
  Result<std::string> read(const std::string& name, std::size_t most_bytes) const;

 private:
  std::string path_;
  int fd_ = -1;
};

// Removes the folders of processes that ended before they could.
void remove_abandoned_guest_folders();

}  // namespace attn
