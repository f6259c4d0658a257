#include "engine/plugin/worker.h"

#include <dlfcn.h>
#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include <string>

#include "engine/base/error.h"
#include "engine/plugin/host.h"
#include "engine/plugin/protocol.h"
#include "tandem/plugin.h"

namespace tandem {
namespace {

constexpr const char* kEntry = "tandem_plugin_entry_v1";

std::string ReadAll(int channel) {
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = read(channel, buffer, sizeof(buffer));
    if (n == 0) return text;
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) Fail(ErrorCode::kPlugin, "planner: cannot read the request");
  }
}

// Writes lines as they come, so that a crash loses none.
class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}
  void Write(const std::string& line) {
    size_t done = 0;
    while (ok_ && done < line.size()) {
      const ssize_t n = write(fd_, line.data() + done, line.size() - done);
      if (n > 0) done += static_cast<size_t>(n);
      if (n < 0 && errno != EINTR) ok_ = false;
    }
  }
  bool ok() const { return ok_; }

 private:
  int fd_;
  bool ok_ = true;
};

const tandem_plugin* OpenPlugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    Fail(ErrorCode::kPlugin, fmt::format("plugin {}: cannot be loaded: {}", path, dlerror()));
  }
  using Entry = const tandem_plugin* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, kEntry));
  if (entry == nullptr) {
    Fail(ErrorCode::kPlugin,
         fmt::format("plugin {}: has no symbol {} (want a tandem plugin of ABI {}, see "
                     "tandem/plugin.h)",
                     path, kEntry, TANDEM_ABI_MAJOR));
  }
  return entry();
}

void Serve(const PlanRequest& request, Channel* channel) {
  channel->Write(StageLine("load"));
  const tandem_plugin* plugin = OpenPlugin(request.plugin_path);
  channel->Write(StageLine("describe"));
  const PluginInfo info = ReadDescriptor(plugin, request.plugin_path);
  channel->Write(InfoLine(info));
  if (!request.plan) return;
  const PlanProblem problem = request.problem();
  PluginHost host(
      problem, info, ResolveKnobs(info, request.knobs),
      [&](int32_t level, const std::string& text) { channel->Write(DiagLine(level, text)); });
  channel->Write(StageLine("plan"));
  channel->Write(PlanLine(host.Run(*plugin)));
}

}  // namespace

bool ServePlanRequest(int fd) {
  Channel channel(fd);
  try {
    Serve(ParseRequest(ReadAll(fd)), &channel);
  } catch (const Error& error) {
    channel.Write(ErrorLine(error));
  } catch (const std::exception& error) {
    channel.Write(ErrorLine(Error(ErrorCode::kPlugin, error.what())));
  }
  channel.Write(DoneLine());
  return channel.ok();
}

}  // namespace tandem
