// Why: all threads of the layers are made here, and put on cores of their own;
// a part that is dealt out twice, or a thread that stays tied to its core,
// shows in no loss.
// Sweeps: 0 to 30 parts on 1 to 8 threads; four threads, time and again.
// Oracle: counts; the cores that the process may use.
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "caffe/util/threads.hpp"
#include "gtest/gtest.h"

namespace caffe {

TEST(DealOut, EachPartOnce) {
  for (int threads = 1; threads < 9; ++threads) {
    for (int parts = 0; parts < 31; ++parts) {
      std::vector<int> calls(parts);
      DealOut(parts, threads, [&](int part, int thread) {
        calls[part] += 0 <= thread && thread < threads;
      });
      EXPECT_EQ(std::vector<int>(parts, 1), calls);
    }
  }
}

#ifdef __linux__
static std::vector<int> allowed_cores() {
  cpu_set_t allowed;
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &allowed)) {
        cores.push_back(core);
      }
    }
  }
  return cores;
}

// A thread that is put on a core may leave it, and those that a process may not
// use stay closed to it.
TEST(DealOut, CoresStayAsTheyAre) {
  const std::vector<int> before = allowed_cores();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<int>> seen(4);
    DealOut(4, 4, [&](int part, int) { seen[part] = allowed_cores(); });
    for (int thread = 0; thread < 4; ++thread) {
      EXPECT_EQ(before, seen[thread]);
    }
  }
  EXPECT_EQ(before, allowed_cores());
}
#endif

}  // namespace caffe
