// Where blocks may be cut, and that the pieces add up to the whole for every weight type.
#include "engine/model/block_graph.h"

#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/model/synthetic.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {
namespace {

constexpr DType kAll[] = {DType::kF32,  DType::kF16,  DType::kBF16,
                          DType::kQ8_0, DType::kQ4_0, DType::kQ4_1};

ModelConfig DefaultShape() {
  return ParseSyntheticSpec("h=576,l=30,heads=9,kv=3,ffn=1536,vocab=49152,ctx=8192").config;
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
  for (const DType type : kAll) {
    for (const bool tied : {true, false}) {
      SyntheticSpec spec{.config = TinyConfig(), .type = type, .embedding_type = DType::kQ8_0};
      spec.config.tied_embedding = tied;
      spec.config.vocab = 331;
      const auto model = MakeShapeOnlyModel(spec);
      EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes()) << ToString(type) << tied;
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

TEST(BlockGraphTest, RefusesColumnsThatAreNoWholeNumberOfBytes) {
  ModelConfig config = TinyConfig();
  config.hidden = 20;
  std::vector<BlockTypes> types = AllOf(DType::kF32, 2);
  types[1].down = DType::kQ4_0;  // 20 rows x 18/32 bytes a column
  try {
    BuildBlockGraph(config, types);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("layer 0: FFN down"), std::string::npos);
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
