#include "engine/plugin/problem_view.h"

#include "engine/plugin/abi.h"

namespace tandem {
namespace {

template <typename T>
std::vector<const T*> PointersTo(const std::vector<T>& items) {
  std::vector<const T*> pointers;
  pointers.reserve(items.size());
  for (const T& item : items) pointers.push_back(&item);
  return pointers;
}

}  // namespace

ProblemView::ProblemView(const PlanProblem& problem) {
  const BlockGraph& graph = *problem.graph;
  AddDevices(problem);
  AddLinks(*problem.rig);
  AddBlocks(graph);
  device_pointers_ = PointersTo(devices_);
  link_pointers_ = PointersTo(links_);
  block_pointers_ = PointersTo(blocks_);

  problem_.struct_size = sizeof(problem_);
  problem_.n_devices = static_cast<uint32_t>(devices_.size());
  problem_.n_links = static_cast<uint32_t>(links_.size());
  problem_.n_blocks = static_cast<uint32_t>(blocks_.size());
  problem_.devices = device_pointers_.data();
  problem_.links = link_pointers_.data();
  problem_.blocks = block_pointers_.data();
  problem_.n_layers = graph.config.n_layers;
  problem_.hidden = graph.config.hidden;
  problem_.tied = graph.tied ? 1 : 0;
  problem_.wire = AbiWire(problem.wire);
  problem_.path = AbiPath(problem.path);
  problem_.shares_given = problem.tensor_split.empty() ? 0 : 1;
  problem_.max_step_tokens = problem.limits.max_step_tokens;
  problem_.max_sequences = problem.limits.max_sequences;
  problem_.context = problem.limits.context;
  problem_.wire_row_bytes = WireBytes(problem.wire, graph.config.hidden).value;
  problem_.host_memory_bytes = problem.rig->host_memory.value;
}

void ProblemView::AddDevices(const PlanProblem& problem) {
  for (const DeviceSpec& spec : problem.rig->devices) names_.push_back(spec.name);
  for (uint32_t i = 0; i < problem.rig->size(); ++i) {
    const DeviceSpec& spec = problem.rig->devices[i];
    tandem_device device{};
    device.struct_size = sizeof(device);
    device.id = static_cast<tandem_device_id>(i);
    device.memory_bytes = spec.memory.value;
    device.memory_bytes_per_s = spec.memory_bytes_per_s;
    device.flops = spec.flops;
    device.memory_efficiency = spec.memory_efficiency;
    device.compute_efficiency = spec.compute_efficiency;
    device.launch_gap_s = spec.launch_gap.Seconds();
    device.share = problem.tensor_split.empty() ? 1.0 : problem.tensor_split[i];
    device.name = names_[i].c_str();
    device.on_host = spec.on_host ? 1 : 0;
    devices_.push_back(device);
  }
}

void ProblemView::AddLinks(const Rig& rig) {
  const auto convert = [](const TimeCurve& curve) {
    Curve result;
    for (const TimePoint& point : curve.points) {
      result.bytes.push_back(point.bytes.value);
      result.seconds.push_back(point.time.Seconds());
    }
    return result;
  };
  link_curve_ = convert(rig.link.send);
  host_curve_ = convert(rig.host_link.send);
  const auto n = static_cast<tandem_device_id>(rig.size());
  for (tandem_device_id src = 0; src < n; ++src) {
    for (tandem_device_id dst = 0; dst < n; ++dst) {
      if (src == dst) continue;
      const bool on_host = rig.OnHost(DeviceId{src}) || rig.OnHost(DeviceId{dst});
      AddLink(on_host ? rig.host_link : rig.link, on_host ? host_curve_ : link_curve_, src, dst);
    }
  }
  for (tandem_device_id device = 0; device < n; ++device) {
    AddLink(rig.host_link, host_curve_, TANDEM_HOST, device);
    AddLink(rig.host_link, host_curve_, device, TANDEM_HOST);
  }
}

void ProblemView::AddLink(const LinkProfile& profile, const Curve& curve, tandem_device_id src,
                          tandem_device_id dst) {
  tandem_link link{};
  link.struct_size = sizeof(link);
  link.kind = AbiLinkKind(profile.kind);
  link.src = src;
  link.dst = dst;
  const size_t n = curve.bytes.size();
  if (n > 0) link.latency_s = curve.seconds[0];
  if (n > 1 && curve.seconds[n - 1] > curve.seconds[n - 2]) {
    link.bytes_per_s = static_cast<double>(curve.bytes[n - 1] - curve.bytes[n - 2]) /
                       (curve.seconds[n - 1] - curve.seconds[n - 2]);
  }
  link.bytes = curve.bytes.data();
  link.seconds = curve.seconds.data();
  link.n_points = static_cast<uint32_t>(n);
  link.full_duplex = profile.full_duplex ? 1 : 0;
  links_.push_back(link);
}

void ProblemView::AddBlocks(const BlockGraph& graph) {
  for (const Block& from : graph.blocks) {
    tandem_block block{};
    block.struct_size = sizeof(block);
    block.kind = AbiBlockKind(from.kind);
    block.layer = from.layer.value;
    block.units = from.units;
    block.elems_per_unit = from.elems_per_unit;
    block.elems = from.elems;
    block.sums = from.sums ? 1 : 0;
    block.bytes_per_elem = from.bytes_per_elem.value;
    block.params_per_elem = from.params_per_elem;
    block.kv_bytes_per_elem_token = from.kv_bytes_per_elem_token.value;
    // A plugin sees one number of what a device holds beside units.
    block.norm_bytes = from.norm_bytes.value + from.head_norm_bytes.value;
    blocks_.push_back(block);
  }
}

}  // namespace tandem
