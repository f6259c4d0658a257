#include "engine/model/gguf_split.h"

#include <fmt/format.h>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr char kNoKey[] = "split.no";
constexpr char kCountKey[] = "split.count";
constexpr char kTensorsKey[] = "split.tensors.count";

GgufSplit RequirePart(const GgufMetadata& metadata, uint32_t no, const GgufSplit& first,
                      const std::string& first_source) {
  const std::optional<GgufSplit> split = ReadSplit(metadata);
  if (!split) {
    metadata.Refuse(kCountKey, fmt::format("missing: a whole model where part {} of {} was wanted",
                                           no + 1, first.count));
  }
  if (split->no != no) {
    metadata.Refuse(kNoKey, fmt::format("{} (want {}: part {} of {} by its place)", split->no, no,
                                        no + 1, first.count));
  }
  if (split->count != first.count) {
    metadata.Refuse(kCountKey, fmt::format("{} (want {}, as {} has it)", split->count, first.count,
                                           first_source));
  }
  if (split->tensors != first.tensors) {
    metadata.Refuse(kTensorsKey, fmt::format("{} (want {}, as {} has it): a part of another model",
                                             split->tensors, first.tensors, first_source));
  }
  return *split;
}

}  // namespace

std::string PathOfPart(std::string_view stem, uint32_t no, uint32_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, no + 1, count);
}

std::optional<GgufSplit> ReadSplit(const GgufMetadata& metadata) {
  const uint32_t count = metadata.FindU32(kCountKey).value_or(0);
  if (count <= 1) {
    return std::nullopt;
  }
  if (count > kMaxGgufParts) {
    metadata.Refuse(kCountKey, fmt::format("{} (want at most {})", count, kMaxGgufParts));
  }
  GgufSplit split{.count = count};
  split.no = metadata.RequireU32(kNoKey);
  if (split.no >= count) {
    metadata.Refuse(kNoKey, fmt::format("{} (want less than {} {})", split.no, kCountKey, count));
  }
  split.tensors = metadata.RequireU32(kTensorsKey);
  return split;
}

std::vector<std::string> PathsOfParts(const std::string& path, const GgufSplit& split) {
  const std::string ending = PathOfPart("", split.no, split.count);
  if (!path.ends_with(ending)) {
    Fail(ErrorCode::kModelFile,
         fmt::format("gguf: {}: part {} of {} by its keys, so that the others can be found its "
                     "name must end in '{}' (rename it back)",
                     path, split.no + 1, split.count, ending));
  }
  const std::string_view stem = std::string_view(path).substr(0, path.size() - ending.size());
  std::vector<std::string> paths;
  for (uint32_t no = 0; no < split.count; ++no) {
    paths.push_back(PathOfPart(stem, no, split.count));
  }
  return paths;
}

void RequireOneModel(std::span<const GgufHeader> parts) {
  const GgufMetadata& first = parts[0].metadata;
  const std::optional<GgufSplit> split = ReadSplit(first);
  if (!split) {
    if (parts.size() > 1) {
      first.Refuse(kCountKey, fmt::format("missing (want {}: the files given)", parts.size()));
    }
    return;
  }
  if (parts.size() != split->count) {
    first.Refuse(kCountKey, fmt::format("part {} of {} alone is not a model (want all parts, got "
                                        "{})",
                                        split->no + 1, split->count, parts.size()));
  }
  uint64_t tensors = 0;
  const std::optional<std::string> arch = first.FindString("general.architecture");
  for (uint32_t no = 0; no < parts.size(); ++no) {
    const GgufMetadata& metadata = parts[no].metadata;
    RequirePart(metadata, no, *split, first.source());
    const std::optional<std::string> own = metadata.FindString("general.architecture");
    if (own && own != arch) {
      metadata.Refuse("general.architecture",
                      fmt::format("{} (want {}, as {} has it)", QuoteForMessage(*own),
                                  QuoteForMessage(arch.value_or("none")), first.source()));
    }
    tensors += parts[no].tensors.size();
  }
  if (tensors != split->tensors) {
    first.Refuse(kTensorsKey, fmt::format("{}, but the {} parts hold {} tensors: a part is "
                                          "damaged or of another model",
                                          split->tensors, split->count, tensors));
  }
}

}  // namespace tandem
