// The short form of a fuzz target, for builds without libFuzzer: the target's corpus, and seeded
// mutations of it, the same ones every time. A target that crashes, throws what it should not, or
// takes long over one input fails; the input is then in the file named on stderr.
//
//   gguf_fuzz tests/fuzz/corpus/gguf 20000 [seed]
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "engine/base/sanitizers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr double kMaxSecondsPerInput = 5;  // of processor time
constexpr size_t kMaxSize = 1u << 16;
constexpr char kCrashFile[] = "fuzz-crash";

// What the signal handler saves.
const std::vector<uint8_t>* current = nullptr;

void SaveCurrent() {
  if (std::FILE* file = current == nullptr ? nullptr : std::fopen(kCrashFile, "wb")) {
    std::fwrite(current->data(), 1, current->size(), file);
    std::fclose(file);
    fmt::print(stderr, "the input is in {}/{}\n", std::filesystem::current_path().string(),
               kCrashFile);
  }
}

// Not async-signal-safe, as crash reporters rarely are: the process is lost either way.
extern "C" void OnCrash(int signal) {
  std::signal(signal, SIG_DFL);
  SaveCurrent();
  std::raise(signal);
}

std::vector<std::vector<uint8_t>> ReadCorpus(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::vector<uint8_t>> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

class Mutator {
 public:
  Mutator(const std::vector<std::vector<uint8_t>>& corpus, uint64_t seed)
      : corpus_(corpus), random_(seed) {}

  // One to four edits of an input; most fall in its first half kilobyte, where headers are.
  std::vector<uint8_t> Next() {
    std::vector<uint8_t> input = corpus_[Below(corpus_.size())];
    for (uint64_t edits = 1 + Below(4); edits > 0; --edits) {
      Edit(input);
    }
    input.resize(std::min(input.size(), kMaxSize));
    return input;
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }

  void Edit(std::vector<uint8_t>& input) {
    if (input.empty()) {
      input.push_back(static_cast<uint8_t>(random_()));
      return;
    }
    const size_t zone = Below(2) == 0 ? input.size() : std::min<size_t>(input.size(), 512);
    const size_t at = Below(zone);
    const size_t rest = input.size() - at;
    switch (Below(8)) {
      case 0:
        input[at] = static_cast<uint8_t>(random_());
        break;
      case 1:
        input[at] ^= static_cast<uint8_t>(1u << Below(8));
        break;
      case 2: {
        // A length, count or offset near a power of two.
        const uint64_t value = (uint64_t{1} << Below(64)) - Below(3);
        std::memcpy(&input[at], &value, std::min<size_t>(Below(2) == 0 ? 4 : 8, rest));
        break;
      }
      case 3:
        input.erase(input.begin() + static_cast<ptrdiff_t>(at),
                    input.begin() + static_cast<ptrdiff_t>(at + std::min(rest, 1 + Below(16))));
        break;
      case 4:
        input.insert(input.begin() + static_cast<ptrdiff_t>(at), 1 + Below(16),
                     static_cast<uint8_t>(random_()));
        break;
      case 5: {
        // A character that text formats live by.
        static constexpr char kMarks[] = "{}[]\",:0-9.eE\\%#'()|u";
        input[at] = static_cast<uint8_t>(kMarks[Below(sizeof(kMarks) - 1)]);
        break;
      }
      case 6:
        input.resize(at);
        break;
      default: {
        // A stretch of another input.
        const auto& other = corpus_[Below(corpus_.size())];
        if (!other.empty()) {
          const size_t from = Below(other.size());
          const size_t size = std::min(other.size() - from, 1 + Below(64));
          input.insert(input.begin() + static_cast<ptrdiff_t>(at),
                       other.begin() + static_cast<ptrdiff_t>(from),
                       other.begin() + static_cast<ptrdiff_t>(from + size));
        }
      }
    }
  }

  const std::vector<std::vector<uint8_t>>& corpus_;
  std::mt19937_64 random_;
};

// Seconds of processor time. The copy is of exact size, so that a sanitizer sees a read beyond it.
double RunOne(std::vector<uint8_t> input) {
  input.shrink_to_fit();
  current = &input;
  const std::clock_t begin = std::clock();
  LLVMFuzzerTestOneInput(input.data(), input.size());
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  if (seconds > kMaxSecondsPerInput) {
    fmt::print(stderr, "one input took {:.1f} s\n", seconds);
    SaveCurrent();
    std::exit(1);
  }
  current = nullptr;
  return seconds;
}

// Sanitizers need the address space for themselves.
void BoundMemory() {
  if (tandem::kAddressSanitizer || tandem::kThreadSanitizer) return;
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = uint64_t{2} << 30;
  setrlimit(RLIMIT_AS, &limit);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: {} CORPUS_FOLDER MUTATIONS [SEED]\n", argv[0]);
    return 2;
  }
  const std::vector<std::vector<uint8_t>> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    fmt::print(stderr, "{}: no corpus\n", argv[1]);
    return 2;
  }
  BoundMemory();
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) {
    std::signal(signal, OnCrash);
  }
  double slowest = 0;
  for (const auto& input : corpus) {
    slowest = std::max(slowest, RunOne(input));
  }
  const uint64_t count = std::stoull(argv[2]);
  Mutator mutator(corpus, argc > 3 ? std::stoull(argv[3]) : 1);
  for (uint64_t i = 0; i < count; ++i) {
    slowest = std::max(slowest, RunOne(mutator.Next()));
  }
  fmt::print("{} inputs and {} mutations, the slowest {:.3f} s\n", corpus.size(), count, slowest);
  return 0;
}
