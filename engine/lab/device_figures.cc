#include "engine/lab/device_figures.h"

#include <array>
#include <functional>
#include <memory>
#include <utility>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr std::array kMeasures{DeviceMeasure::kMemoryRead,  DeviceMeasure::kMemoryCopy,
                               DeviceMeasure::kProductBf16, DeviceMeasure::kProductF16,
                               DeviceMeasure::kProductInt8, DeviceMeasure::kProductF32,
                               DeviceMeasure::kLaunchEager, DeviceMeasure::kLaunchGraph};

struct Unit {
  const char* name;
  double scale;  // from the plain unit
};
Unit UnitOf(DeviceMeasure what) {
  switch (what) {
    case DeviceMeasure::kMemoryRead:
    case DeviceMeasure::kMemoryCopy:
      return {"GB/s", 1e-9};
    case DeviceMeasure::kLaunchEager:
    case DeviceMeasure::kLaunchGraph:
      return {"us", 1e6};
    default:
      return {"TFLOP/s", 1e-12};
  }
}

// Probes of the devices that are measured, and the arms over them.
class Devices {
 public:
  Devices(Backend& backend, const ProductSizes& sizes) : backend_(backend), sizes_(sizes) {
    alone_ = backend.devices()[0]->works_alone();
    measured_ = alone_ ? backend.devices().size() : 1;
  }

  std::vector<MeasuredFigure> Run(const ProbeRounds& rounds, const ProbeProgress& progress) {
    std::vector<ProbeArm> arms;
    std::vector<Unit> units;
    const auto add = [&](const std::string& name, Unit unit,
                         std::function<std::vector<double>()> sample) {
      arms.push_back(ProbeArm{name, std::move(sample), {}, {}});
      units.push_back(unit);
    };
    for (DeviceMeasure what : kMeasures) {
      add(NameOf(what), UnitOf(what), [this, what] { return Roofs(what); });
    }
    add(kDecodeRead, {"GB/s", 1e-9}, [this] { return Products(&ProductProbe::AskDecode); });
    add(kPrefillProducts, {"TFLOP/s", 1e-12},
        [this] { return Products(&ProductProbe::AskPrefill); });
    RunInTurn(arms, rounds, progress);
    std::vector<MeasuredFigure> figures;
    for (size_t d = 0; d < backend_.devices().size(); ++d) {
      for (size_t i = 0; i < arms.size(); ++i) {
        MeasuredFigure figure{.device = static_cast<int32_t>(d),
                              .what = arms[i].name,
                              .unit = units[i].name,
                              .value = {},
                              .absent = arms[i].failed};
        if (figure.absent.empty()) {
          figure.value = SpreadOf(arms[i].series[alone_ ? d : 0], units[i].scale);
        }
        figures.push_back(std::move(figure));
      }
    }
    return figures;
  }

 private:
  // All are asked before the first is waited for: those that share a GPU work side by side.
  std::vector<double> Roofs(DeviceMeasure what) {
    std::vector<double> values;
    while (probes_.size() < measured_) {
      probes_.push_back(backend_.MakeProbe(probes_.size()));
      if (probes_.back() != nullptr) continue;
      probes_.pop_back();
      Fail(ErrorCode::kUnsupported, "probe: this back end measures no roofs");
    }
    for (const auto& probe : probes_) probe->Ask(what);
    for (const auto& probe : probes_) values.push_back(probe->Take());
    return values;
  }

  std::vector<double> Products(void (ProductProbe::*ask)()) {
    // Roofs of a team are given as each sharer's part; so is what products reach.
    const double share = alone_ ? 1 : 1.0 / static_cast<double>(backend_.devices().size());
    std::vector<double> values;
    while (products_.size() < measured_) {
      products_.push_back(std::make_unique<ProductProbe>(backend_, products_.size(), sizes_));
    }
    for (const auto& product : products_) (*product.*ask)();
    for (const auto& product : products_) values.push_back(product->Take() * share);
    return values;
  }

  Backend& backend_;
  const ProductSizes sizes_;
  bool alone_ = false;
  size_t measured_ = 0;  // devices
  std::vector<std::unique_ptr<DeviceProbe>> probes_;
  std::vector<std::unique_ptr<ProductProbe>> products_;
};

}  // namespace

std::string NameOf(DeviceMeasure what) {
  switch (what) {
    case DeviceMeasure::kMemoryRead:
      return kMemoryRead;
    case DeviceMeasure::kMemoryCopy:
      return kMemoryCopy;
    case DeviceMeasure::kProductBf16:
      return "products of bf16";
    case DeviceMeasure::kProductF16:
      return "products of f16";
    case DeviceMeasure::kProductInt8:
      return "products of int8";
    case DeviceMeasure::kProductF32:
      return "products of f32";
    case DeviceMeasure::kLaunchEager:
      return kLaunchEager;
    case DeviceMeasure::kLaunchGraph:
      return kLaunchGraph;
  }
  return "";
}

std::vector<MeasuredFigure> MeasureDevices(Backend& backend, const ProductSizes& products,
                                           const ProbeRounds& rounds,
                                           const ProbeProgress& progress) {
  return Devices(backend, products).Run(rounds, progress);
}

const MeasuredFigure* FindFigure(const RigMeasurements& measured, int32_t device,
                                 const std::string& what) {
  for (const MeasuredFigure& figure : measured.figures) {
    if (figure.device == device && figure.what == what && figure.absent.empty()) return &figure;
  }
  return nullptr;
}

}  // namespace tandem
