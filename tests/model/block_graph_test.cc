// Where blocks may be cut, and that the pieces add up to the whole for every weight type.
#include "engine/model/block_graph.h"

#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/model/synthetic.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {
namespace {

ModelConfig DefaultShape() {
  return ParseSyntheticSpec("h=576,l=30,heads=9,kv=3,ffn=1536,vocab=49152,ctx=8192").config;
}

// Widths of whole blocks of 256, and three heads of 256 columns in all.
ModelConfig WideConfig() {
  return ParseSyntheticSpec("h=256,l=2,heads=12,kv=6,hd=64,ffn=768,vocab=331").config;
}

std::vector<BlockTypes> AllOf(DType type, uint32_t layers) {
  const BlockTypes types{type, type, type, type, type, type, type, type, type};
  return std::vector<BlockTypes>(layers + 1, types);
}

TEST(BlockGraphTest, CutsTheDefaultModelByHeadColumnAndVocabulary) {
  std::vector<BlockTypes> types = AllOf(DType::kQ4_1, 30);
  types[0].embedding = types[0].output = DType::kQ8_0;
  const BlockGraph graph = BuildBlockGraph(DefaultShape(), types);
  ASSERT_EQ(graph.size(), 62u);
  EXPECT_TRUE(graph.tied);

  const Block& embed = graph.at(BlockId{0});
  EXPECT_EQ(embed.kind, BlockKind::kEmbed);
  EXPECT_EQ(embed.units, 768u);
  EXPECT_EQ(embed.bytes_per_elem.value, 612u);
  EXPECT_EQ(embed.norm_bytes.value, 0u);
  EXPECT_TRUE(embed.sums);

  const Block& attention = graph.at(BlockGraph::AttentionOf(LayerIndex{29}));
  EXPECT_EQ(attention.kind, BlockKind::kAttention);
  EXPECT_EQ(attention.layer.value, 29u);
  EXPECT_EQ(attention.units, 3u);
  EXPECT_EQ(attention.elems, 3u);
  EXPECT_EQ(attention.elems_per_unit, 1u);
  // wq 192 rows, wk and wv 64 each of 360 bytes; wo 576 rows of 6 blocks
  EXPECT_EQ(attention.bytes_per_elem.value, (192 + 64 + 64) * 360u + 576 * 6 * 20u);
  EXPECT_EQ(attention.params_per_elem, (192 + 64 + 64 + 192) * 576u);
  EXPECT_EQ(attention.kv_bytes_per_elem_token.value, 256u);
  EXPECT_EQ(attention.KvBytesPerToken(UnitRange{0, 2}).value, 512u);
  EXPECT_EQ(attention.norm_bytes.value, 2304u);

  const Block& mlp = graph.at(BlockGraph::MlpOf(LayerIndex{0}));
  EXPECT_EQ(mlp.kind, BlockKind::kMlp);
  EXPECT_EQ(mlp.units, 48u);
  EXPECT_EQ(mlp.elems_per_unit, 32u);
  EXPECT_EQ(mlp.bytes_per_elem.value, 360u + 360u + 360u);
  EXPECT_EQ(mlp.params_per_elem, 3 * 576u);

  const Block& head = graph.at(graph.head());
  EXPECT_EQ(head.kind, BlockKind::kHead);
  EXPECT_FALSE(head.sums);
  EXPECT_EQ(head.units, 768u);
  EXPECT_EQ(head.params_per_elem, 576u);
  EXPECT_EQ(head.norm_bytes.value, 2304u);
}

TEST(BlockGraphTest, GroupsHeadsUntilColumnsOfWoEndOnABlock) {
  ModelConfig config = TinyConfig();  // 2 KV heads with 2 query heads of 16 each: 32 columns a head
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kQ4_0, 2)).blocks[1].elems_per_unit, 1u);
  config.n_heads = config.n_kv_heads = 6;  // 16 columns a head: blocks end at every second head
  config.hidden = 96;
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kQ4_0, 2)).blocks[1].elems_per_unit, 2u);
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kQ4_0, 2)).blocks[1].units, 3u);
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kF16, 2)).blocks[1].elems_per_unit, 1u);
  config.head_dim = 8;  // 8 columns a head: a unit takes 4 of 12, the last unit is whole as well
  config.n_heads = config.n_kv_heads = 12;
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kQ4_0, 2)).blocks[1].units, 3u);
}

TEST(BlockGraphTest, MakesOneUnitWhereNoBoundaryFallsInside) {
  ModelConfig config = TinyConfig();
  config.n_heads = config.n_kv_heads = 2;
  config.head_dim = config.rope_dim = 16;  // 32 columns in all: one block
  const BlockGraph graph = BuildBlockGraph(config, AllOf(DType::kQ4_0, 2));
  EXPECT_EQ(graph.blocks[1].units, 1u);
  EXPECT_EQ(graph.blocks[1].elems_per_unit, 2u);
}

TEST(BlockGraphTest, LeavesTheLastUnitSmaller) {
  ModelConfig config = TinyConfig();
  config.ffn = 100;
  config.vocab = 130;
  const BlockGraph graph = BuildBlockGraph(config, AllOf(DType::kF32, 2));
  const Block& mlp = graph.blocks[2];
  EXPECT_EQ(mlp.units, 4u);
  EXPECT_EQ(mlp.ElemCount(UnitRange{3, 4}), 4u);
  EXPECT_EQ(mlp.ElemCount(mlp.AllUnits()), 100u);
  const Block& head = graph.at(graph.head());
  EXPECT_EQ(head.units, 3u);
  EXPECT_EQ(head.ElemBegin(UnitRange{2, 3}), 128u);
  EXPECT_EQ(head.ElemEnd(UnitRange{2, 3}), 130u);
}

TEST(BlockGraphTest, UnitsAndNormsAddUpToTheWeightsForEveryType) {
  for (const DType type : kAllDTypes) {
    const bool wide = Traits(type).block_elems == 256;
    for (const bool tied : {true, false}) {
      SyntheticSpec spec{.config = TinyConfig(), .type = type, .embedding_type = DType::kQ8_0};
      if (wide) spec.config = WideConfig();
      spec.config.tied_embedding = tied;
      spec.config.vocab = 331;
      const auto model = MakeShapeOnlyModel(spec);
      EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes()) << ToString(type) << tied;
      if (wide) continue;
      spec.config = DefaultShape();
      spec.config.tied_embedding = tied;
      const auto shape = MakeShapeOnlyModel(spec);
      EXPECT_EQ(SumOfBlocks(*shape), shape->weight_bytes()) << ToString(type) << tied;
    }
  }
}

TEST(BlockGraphTest, BiasesBelongToTheirHeadsAndHeadNormsToNone) {
  for (const char* text : {"h=48,l=2,heads=6,kv=3,hd=8,ffn=64,vocab=331,arch=qwen2,tied=0",
                           "h=40,l=2,heads=4,kv=2,hd=16,ffn=72,vocab=331,arch=qwen3",
                           "h=64,l=2,heads=4,kv=2,hd=16,type=q4_1,bias=1"}) {
    const SyntheticSpec spec = ParseSyntheticSpec(text);
    const auto model = MakeShapeOnlyModel(spec);
    EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes()) << text;
    SyntheticSpec plain = spec;
    plain.config.attention_bias = plain.config.qk_norm = false;
    plain.config.architecture = "llama";
    const Block& block = model->blocks().blocks[1];
    const auto without = MakeShapeOnlyModel(plain);
    const uint64_t bias = (spec.config.group() + 2) * spec.config.head_dim * 4;
    EXPECT_EQ(block.bytes_per_elem.value, without->blocks().blocks[1].bytes_per_elem.value +
                                              (spec.config.attention_bias ? bias : 0));
    EXPECT_EQ(block.head_norm_bytes.value, spec.config.qk_norm ? 8 * spec.config.head_dim : 0);
    EXPECT_EQ(model->blocks().blocks[2].head_norm_bytes.value, 0u);
  }
}

TEST(BlockGraphTest, LayersMayDifferInType) {
  std::vector<BlockTypes> types = AllOf(DType::kQ4_0, 2);
  types[2].wo = DType::kF16;
  types[2].down = DType::kQ8_0;
  const BlockGraph graph = BuildBlockGraph(TinyConfig(), types);
  const uint64_t rows = 32 + 16 + 16;
  EXPECT_EQ(graph.blocks[1].bytes_per_elem.value, rows * 36 + 64 * 18);
  EXPECT_EQ(graph.blocks[3].bytes_per_elem.value, rows * 36 + 64 * 32 * 2);
  EXPECT_EQ(graph.blocks[4].bytes_per_elem.value, 36 + 36 + 64 * 34 / 32);
}

TEST(BlockGraphTest, UnitsNeverCutALongBlock) {
  const BlockGraph graph = BuildBlockGraph(WideConfig(), AllOf(DType::kQ4_K, 2));
  EXPECT_EQ(graph.blocks[1].elems_per_unit, 2u);  // 2 KV heads x 2 query heads x 64 = 256 columns
  EXPECT_EQ(graph.blocks[1].units, 3u);
  EXPECT_EQ(graph.blocks[2].elems_per_unit, 256u);
  EXPECT_EQ(graph.blocks[2].units, 3u);
  ModelConfig config = WideConfig();
  config.n_kv_heads = 4;  // 3 query heads, 192 columns a KV head: only all four end on a block
  EXPECT_EQ(BuildBlockGraph(config, AllOf(DType::kQ4_K, 2)).blocks[1].units, 1u);
}

// llama-quantize gives the default model's w_down, 1536 columns, a K type beside 576 rows.
TEST(BlockGraphTest, ElementsAreTheColumnsThatTakeWholeBytes) {
  std::vector<BlockTypes> types = AllOf(DType::kQ8_0, 30);
  types[1].down = DType::kQ4_K;
  types[2].down = DType::kQ6_K;
  const BlockGraph graph = BuildBlockGraph(DefaultShape(), types);
  const Block& four = graph.at(BlockGraph::MlpOf(LayerIndex{0}));
  EXPECT_EQ(four.columns, 1u);
  EXPECT_EQ(four.bytes_per_elem.value, 612u + 612u + 324u);
  const Block& six = graph.at(BlockGraph::MlpOf(LayerIndex{1}));
  EXPECT_EQ(six.columns, 2u);  // 576 x 210 / 256 = 472.5 bytes a column
  EXPECT_EQ(six.elems, 768u);
  EXPECT_EQ(six.elems_per_unit, 128u);
  EXPECT_EQ(six.units, 6u);
  EXPECT_EQ(six.bytes_per_elem.value, 2 * (612u + 612u) + 945u);
  EXPECT_EQ(six.params_per_elem, 2 * 3 * 576u);
  EXPECT_EQ(six.UnitBytes(six.AllUnits()).value, 1536u * (612 + 612) + 576u * 6 * 210);
}

TEST(BlockGraphTest, RefusesHeadsThatAreNoWholeNumberOfBytes) {
  ModelConfig config = TinyConfig();
  config.hidden = 21;
  config.head_dim = 8;
  config.n_heads = config.n_kv_heads = 4;  // heads of 8 columns: 21 x 8 x 22/32 bytes
  std::vector<BlockTypes> types = AllOf(DType::kF32, 2);
  types[1].wo = DType::kQ5_0;
  try {
    BuildBlockGraph(config, types);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("layer 0: attention output"), std::string::npos);
  }
}

TEST(BlockGraphTest, NamesItsBlocks) {
  EXPECT_STREQ(ToString(BlockKind::kEmbed), "EMBED");
  EXPECT_STREQ(ToString(BlockKind::kAttention), "ATTENTION");
  EXPECT_STREQ(ToString(BlockKind::kMlp), "MLP");
  EXPECT_STREQ(ToString(BlockKind::kMoe), "MOE");
  EXPECT_STREQ(ToString(BlockKind::kHead), "HEAD");
}

}  // namespace
}  // namespace tandem
