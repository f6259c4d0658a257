// The path `p2p`: kernels that reach another GPU's memory. One-shot all-reduces and sends by
// PeerLink (peer_link.h), everything else as copies by a kernel, pushed by the sender or pulled by
// the receiver.
//
// Which of the two a fabric does better, or at all, differs: unless one is given, both are tried at
// construction, values compared and times taken, for small and for large messages apart.
//
//   auto p2p = MakeP2pTransport({}, devices, host, std::move(kernels));
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "engine/link/peer_link.h"
#include "engine/link/transport.h"

namespace tandem {

// Who moves what crosses: the sender, the receiver, or whichever a probe finds faster.
enum class P2pWay : uint8_t { kAuto, kPush, kPull };
const char* ToString(P2pWay way);  // "auto", "push", "pull"
std::optional<P2pWay> P2pWayFromName(std::string_view name);

struct P2pOptions {
  P2pWay way = P2pWay::kAuto;
  Nanos bound = PeerLinkOptions{}.bound;
  const Rig* shape = nullptr;  // see PeerLinkOptions
  bool recordable = true;      // see SmallByKernel
};

// Devices reach one another's memory already. All but `kernels` outlive the transport. Throws
// Error(kDevice) where neither way delivers.
std::unique_ptr<Transport> MakeP2pTransport(const P2pOptions& options,
                                            std::span<const std::unique_ptr<Device>> devices,
                                            Device& host, std::unique_ptr<PeerKernels> kernels);

}  // namespace tandem
