#include "base/counted.h"

#include <gtest/gtest.h>

namespace molt {

TEST(Counted, OneIsSingular) {
  EXPECT_EQ(counted(0, "sample"), "0 samples");
  EXPECT_EQ(counted(1, "sample"), "1 sample");
  EXPECT_EQ(counted(21, "sample"), "21 samples");
  EXPECT_EQ(counted(1, "entry", "entries"), "1 entry");
  EXPECT_EQ(counted(2, "entry", "entries"), "2 entries");
}

}  // namespace molt
