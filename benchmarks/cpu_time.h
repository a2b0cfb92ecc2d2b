#pragma once

#include <dirent.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <set>

inline double seconds_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Of this process.
inline double cpu_s() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

// Of one of its threads, by number. The clock of any thread is made as glibc and the kernel do it.
inline double cpu_s_of_thread(int tid) {
  return seconds_of(static_cast<clockid_t>(~static_cast<unsigned>(tid) << 3 | 6u));
}

// The numbers of its threads.
inline std::set<int> threads() {
  std::set<int> found;
  DIR* const folder = opendir("/proc/self/task");
  while (const dirent* entry = readdir(folder))
    if (entry->d_name[0] != '.') found.insert(std::atoi(entry->d_name));
  closedir(folder);
  return found;
}
