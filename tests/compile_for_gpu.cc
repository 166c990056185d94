// Compiles an HLO module for a GPU with TensorFlow's own XLA, without a GPU.
//
//     compile_for_gpu MODULE TARGET
//
// MODULE is a serialized HloModuleProto, TARGET a GpuTargetConfigProto as text.

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "google/protobuf/text_format.h"
#include "xla/hlo/ir/hlo_module.h"
#include "xla/service/compiler.h"
#include "xla/service/gpu_topology.h"
#include "xla/service/hlo.pb.h"
#include "xla/stream_executor/cuda/cuda_platform_id.h"
#include "xla/stream_executor/device_description.pb.h"

// TensorFlow registers this compiler only where there is a GPU, and does not ship all
// headers that its class needs.
extern "C" void construct_compiler(void*) asm("_ZN3xla3gpu13NVPTXCompilerC1Ev");

// More than the compiler's size, which is unknown here.
constexpr size_t kCompilerBytes = 1 << 16;

std::string Read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream contents;
  contents << file.rdbuf();
  return contents.str();
}

template <typename T>
T Value(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cout << result.status() << std::endl;
    std::exit(1);
  }
  return std::move(*result);
}

int main(int argc, char** argv) {
  xla::HloModuleProto proto;
  stream_executor::GpuTargetConfigProto target;
  if (argc != 3 || !proto.ParseFromString(Read(argv[1])) ||
      !google::protobuf::TextFormat::ParseFromString(Read(argv[2]), &target)) {
    std::cout << "expected a module and a target" << std::endl;
    return 1;
  }
  auto config = Value(xla::HloModule::CreateModuleConfigFromProto(
      proto, xla::GetDebugOptionsFromFlags()));
  auto module = Value(xla::HloModule::CreateFromProto(proto, config));
  auto gpu = Value(xla::gpu::GpuTargetConfig::FromProto(target));

  void* memory = std::aligned_alloc(64, kCompilerBytes);
  construct_compiler(memory);
  auto* compiler = static_cast<xla::Compiler*>(memory);
  xla::AotCompilationOptions options(stream_executor::cuda::kCudaPlatformId);
  options.set_gpu_topology(xla::GetSingleDeviceGpuTopology("CUDA", gpu));
  auto compiled =
      Value(compiler->CompileAheadOfTime(std::move(module), options));
  std::cout << Value(compiled[0]->SerializeAsString());
}
