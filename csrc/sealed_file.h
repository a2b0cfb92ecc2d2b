#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace sut {

// A text as a file in memory that no process can change, for code that reads only files.
class SealedFile {
 public:
  explicit SealedFile(const std::string& text)
      : fd_(memfd_create("settings", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
    constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    const ssize_t written = write(fd_, text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size()) || fcntl(fd_, F_ADD_SEALS, kSeals) != 0) {
      const int error = errno;
      close(fd_);
      throw std::system_error(error, std::generic_category(), "sealing a file in memory");
    }
  }
  ~SealedFile() { close(fd_); }
  SealedFile(const SealedFile&) = delete;
  SealedFile& operator=(const SealedFile&) = delete;

  // Valid in this process, as long as this object lives.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  const int fd_;
};

}  // namespace sut
