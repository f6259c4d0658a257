// How cuBLASLt is found, and what is said where it is not, or is not the one.
#include "kernels/cuda/native/cublaslt_library.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"

namespace tandem::cuda {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectRefusal(const std::string& name, const ::testing::Matcher<std::string>& text) {
  try {
    LoadCublasLt(name);
    FAIL() << name << " was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(error.what()), AllOf(text, HasSubstr(name)));
  }
}

TEST(CublasLtLibraryTest, OneThatIsNotThere) {
  ExpectRefusal("libcublasLt.so.13.absent",
                AllOf(HasSubstr("LD_LIBRARY_PATH"), HasSubstr("--prefill-products own")));
}

TEST(CublasLtLibraryTest, OneThatLacksAFunction) {
  ExpectRefusal("libm.so.6", HasSubstr("has no cublasLtGetVersion"));
}

TEST(CublasLtLibraryTest, OneOfAnotherVersion) {
  ExpectRefusal(OLD_CUBLASLT, AllOf(HasSubstr("is version 12.3"), HasSubstr("want 13.x")));
}

TEST(CublasLtLibraryTest, TheToolkitsOwn) {
  void* there = dlopen(CublasLtName().c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (there == nullptr) GTEST_SKIP() << dlerror();
  const CublasLt loaded = LoadCublasLt(CublasLtName());
  EXPECT_EQ(loaded.version() / 10000, static_cast<size_t>(CUBLAS_VER_MAJOR));
  EXPECT_STREQ(loaded.status_name(CUBLAS_STATUS_NOT_SUPPORTED), "CUBLAS_STATUS_NOT_SUPPORTED");
}

}  // namespace
}  // namespace tandem::cuda
