#include "base/config.h"

#include <cmath>

#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt::config_test {

struct Optimizer {
  std::string type = "adamw";
  double learning_rate = 1e-3;
  std::int64_t warmup = 100;
  bool fused = true;
  std::optional<double> clip = 1.0;
  double momentum = 0.9;
  void visit(ConfigVisitor& v) {
    v.choice("type", type, {"adamw", "sgd"}, "Rule of the update");
    v.field("learning_rate", learning_rate, "Largest step");
    v.field("warmup", warmup, "Steps of linear warm-up");
    v.field("fused", fused, "All parameters in one pass");
    v.field("clip", clip, "Largest norm of the gradient");
    if (type == "sgd") v.field("momentum", momentum, "Share of the last step that is kept");
  }
};

struct Stage {
  std::string name;
  std::optional<std::int64_t> tokens;
  Optimizer optimizer;
  void visit(ConfigVisitor& v) {
    v.field("name", name, "Name of the stage");
    v.field("tokens", tokens, "Tokens to train on");
    v.field("optimizer", optimizer, "How the weights are updated");
  }
};

struct Recipe {
  std::vector<Stage> stages;
  std::map<std::string, Stage> named;
  std::optional<Optimizer> finish;
  std::vector<std::int64_t> layers = {1, 2};
  std::vector<double> weights;
  std::vector<std::string> words = {"a"};
  void visit(ConfigVisitor& v) {
    v.field("stages", stages, "What happens, one after the other");
    v.field("named", named, "Stages by name");
    v.field("finish", finish, "Optimizer of the last steps");
    v.field("layers", layers, "Layers to convert");
    v.field("weights", weights, "Weights of the losses");
    v.field("words", words,
            "Words that stop an answer, a meaning that is long enough to be wrapped into more than one line of text");
  }
};

Recipe parse(const std::string& text, const Overrides& overrides = {}) {
  Recipe recipe;
  parse_config(text, "recipe.yaml", overrides, [&](ConfigVisitor& v) { recipe.visit(v); });
  return recipe;
}

std::string parse_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { parse(text, overrides); });
}
std::string option_error(const std::string& text, const std::string& option, const std::string& assignment) {
  Overrides overrides;
  overrides.add(option, assignment);
  return error_of([&] { parse(text, overrides); });
}

TEST(Config, ReadsEachKindOfField) {
  const Recipe recipe = parse(R"(
stages:
  - name: first
    tokens: 1e6
  - name: "30"
    optimizer: {type: sgd, learning_rate: 3e-4, warmup: 1_000, fused: no, clip: null, momentum: .5}
named:
  main: {name: x}
finish:
  learning_rate: 1
layers: []
weights: [1, -2.5e-1, +.inf]
words: [plain, 1, "null", ...]
)");
  ASSERT_EQ(recipe.stages.size(), 2u);
  EXPECT_EQ(recipe.stages[0].tokens, 1000000);
  EXPECT_EQ(recipe.stages[0].optimizer.clip, 1.0);
  EXPECT_EQ(recipe.stages[1].name, "30");
  const Optimizer& optimizer = recipe.stages[1].optimizer;
  EXPECT_EQ(optimizer.type, "sgd");
  EXPECT_EQ(optimizer.learning_rate, 3e-4);
  EXPECT_EQ(optimizer.warmup, 1000);
  EXPECT_FALSE(optimizer.fused);
  EXPECT_FALSE(optimizer.clip);
  EXPECT_EQ(optimizer.momentum, 0.5);
  EXPECT_EQ(recipe.named.at("main").name, "x");
  EXPECT_EQ(recipe.finish.value().learning_rate, 1.0);
  EXPECT_TRUE(recipe.layers.empty());
  EXPECT_EQ(recipe.weights, (std::vector<double>{1, -0.25, INFINITY}));
  EXPECT_EQ(recipe.words, (std::vector<std::string>{"plain", "1", "null", "..."}));
}

TEST(Config, MissingKeysKeepDefaults) {
  for (const char* text : {"", "# nothing\n", "finish: null\n"}) {
    const Recipe recipe = parse(text);
    EXPECT_TRUE(recipe.stages.empty());
    EXPECT_FALSE(recipe.finish);
    EXPECT_EQ(recipe.layers, (std::vector<std::int64_t>{1, 2}));
  }
  EXPECT_EQ(parse("stages: [{optimizer: }]").stages.at(0).optimizer.warmup, 100);
}

TEST(Config, NamesUnknownKeysAtEveryLevel) {
  EXPECT_EQ(parse_error("stages:\n  - name: a\n  - optimizer:\n      lerning_rate: 1\n"),
            "recipe.yaml:4: stages[1].optimizer.lerning_rate: unknown key (did you mean \"learning_rate\"?)");
  EXPECT_EQ(parse_error("a: 1\nstage: []\n"),
            "recipe.yaml:1: a: unknown key (known here: stages, named, finish, layers, weights, words)");
  EXPECT_EQ(parse_error("stage: []\n"), "recipe.yaml:1: stage: unknown key (did you mean \"stages\"?)");
  EXPECT_EQ(parse_error("named:\n  x:\n    nmae: 1\n"), "recipe.yaml:3: named.x.nmae: unknown key (did you mean \"name\"?)");
  EXPECT_EQ(parse_error("finish: {wormup: 1}"), "recipe.yaml:1: finish.wormup: unknown key (did you mean \"warmup\"?)");
  EXPECT_NE(parse_error("finish: {momentum: 1}"), "") << "a key of another choice";
}

TEST(Config, NamesFoundAndExpected) {
  EXPECT_EQ(parse_error("finish: {warmup: 1.5}"), "recipe.yaml:1: finish.warmup: found \"1.5\", expected a whole number");
  for (const char* bad : {"1__0", "_1", "1_", "0x10", "1e", "99999999999999999999", "1e300", "1 2", "''"})
    EXPECT_NE(parse_error(std::string("finish: {warmup: ") + bad + "}"), "") << bad;
  EXPECT_EQ(parse_error("finish:\n  learning_rate: fast\n"),
            "recipe.yaml:2: finish.learning_rate: found \"fast\", expected a number");
  EXPECT_NE(parse_error("finish: {learning_rate: .nan}"), "");
  EXPECT_EQ(parse_error("finish: {fused: 1}"), "recipe.yaml:1: finish.fused: found \"1\", expected true or false");
  EXPECT_EQ(parse_error("stages: [{name: }]"), "recipe.yaml:1: stages[0].name: found nothing, expected a text");
  EXPECT_EQ(parse_error("stages: [{name: [a]}]"), "recipe.yaml:1: stages[0].name: found a list, expected a text");
  EXPECT_EQ(parse_error("finish: {type: adam}"),
            "recipe.yaml:1: finish.type: found \"adam\", expected one of adamw, sgd (did you mean \"adamw\"?)");
  EXPECT_EQ(parse_error("layers: 3"), "recipe.yaml:1: layers: found \"3\", expected a list ([] for an empty one)");
  EXPECT_EQ(parse_error("layers:\n  - 1\n  - x\n"), "recipe.yaml:3: layers[1]: found \"x\", expected a whole number");
  EXPECT_EQ(parse_error("stages: {}"), "recipe.yaml:1: stages: found a section, expected a list ([] for an empty one)");
  EXPECT_EQ(parse_error("stages: [3]"), "recipe.yaml:1: stages[0]: found \"3\", expected a section of keys and values");
  EXPECT_EQ(parse_error("finish: 3"), "recipe.yaml:1: finish: found \"3\", expected a section of keys and values");
  EXPECT_EQ(parse_error("- 3"), "recipe.yaml:1: found a list, expected a section of keys and values");
}

class Includes : public FolderTest {
 protected:
  std::string error(const std::string& file) {
    return molt::error_of([&] { load_config<Recipe>(folder / file); });
  }
};

TEST_F(Includes, HoldWhereTheFileSaysNothing) {
  write_file(folder / "shared/base.yaml", "finish: {type: sgd, warmup: 7, momentum: 0.5}\nlayers: [1]\nweights: [0.5]\n");
  write_file(folder / "shared/second.yaml", "include: base.yaml\nwords: [x]\nfinish: {warmup: 8}\n");
  write_file(folder / "top.yaml", "include: [shared/base.yaml, shared/second.yaml]\nfinish: {momentum: 0.25}\nlayers: [3, 4]\n");
  const auto recipe = load_config<Recipe>(folder / "top.yaml", {{"finish.clip=9"}});
  EXPECT_EQ(recipe.finish->type, "sgd");
  EXPECT_EQ(recipe.finish->warmup, 8);
  EXPECT_EQ(recipe.finish->momentum, 0.25);
  EXPECT_EQ(recipe.finish->clip, 9.0);
  EXPECT_EQ(recipe.layers, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(recipe.weights, std::vector<double>{0.5});
  EXPECT_EQ(recipe.words, std::vector<std::string>{"x"});
}

TEST_F(Includes, ErrorsNameTheFileThatIsWrong) {
  write_file(folder / "base.yaml", "layers: [1]\nlayer: 3\n");
  write_file(folder / "top.yaml", "include: base.yaml\n");
  EXPECT_TRUE(error("top.yaml").starts_with((folder / "base.yaml").string() + ":2: layer")) << error("top.yaml");
  write_file(folder / "top.yaml", "include: absent.yaml\n");
  EXPECT_TRUE(error("top.yaml").find("absent.yaml") != std::string::npos) << error("top.yaml");
  write_file(folder / "base.yaml", "include: top.yaml\n");
  write_file(folder / "top.yaml", "include: base.yaml\n");
  EXPECT_TRUE(error("top.yaml").ends_with("the file includes itself")) << error("top.yaml");
  write_file(folder / "top.yaml", "include: {a: b}\n");
  EXPECT_TRUE(error("top.yaml").find("include: found a section, expected the name of a file") != std::string::npos);
}

TEST(Config, RefusesWhatIsNoYaml) {
  EXPECT_EQ(parse_error("layers: [1\nx: ]: 2").find("recipe.yaml:2:"), 0u) << parse_error("layers: [1\nx: ]: 2");
  EXPECT_EQ(parse_error("layers: []\nwords: []\nlayers: []\n"), "recipe.yaml:3: layers: given twice (first at recipe.yaml:1)");
  EXPECT_EQ(parse_error("finish: {warmup: 1, warmup: 1}"), "recipe.yaml:1: warmup: given twice (first at recipe.yaml:1)");
  EXPECT_EQ(parse_error("[a]: 1"), "recipe.yaml:1: found a list, expected a key");
  EXPECT_EQ(parse_error("layers: []\n---\nlayers: []\n"), "recipe.yaml: found several documents (---), expected one");
  EXPECT_NE(parse_error("layers: *none"), "");
}

TEST(Config, SurvivesDeepAndCyclicYaml) {
  EXPECT_EQ(parse_error("layers: &a [*a]"), "recipe.yaml:1: an alias (*name) stands inside what it names");
  EXPECT_EQ(parse_error("stages: &a\n  - <<: *a\n"), "recipe.yaml:2: an alias (*name) stands inside what it names");
  EXPECT_NE(parse_error("layers: " + std::string(300, '[') + std::string(300, ']')).find("nested deeper than 256"),
            std::string::npos);
  EXPECT_NE(parse_error("layers: " + std::string(100000, '[')).find("nested deeper than 256"), std::string::npos);
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  EXPECT_NE(parse_error(deep).find("nested deeper than 256"), std::string::npos);
  std::string chain = "a0: &a0 [x]\n";
  for (int i = 1; i < 5000; ++i) chain += concat("a", i, ": &a", i, " [*a", i - 1, "]\n");
  EXPECT_NE(parse_error(chain).find("nested deeper than 256"), std::string::npos);
}

TEST(Config, ResolvesAnchorsAndMerges) {
  const Recipe recipe = parse(R"(
stages:
  - name: base
    optimizer: &base {learning_rate: 1, warmup: 5}
  - name: own
    optimizer: {<<: *base, warmup: 6}
  - name: other
    optimizer: *base
  - name: list
    optimizer:
      <<: [{warmup: 7}, *base]
)");
  EXPECT_EQ(recipe.stages.at(1).optimizer.learning_rate, 1);
  EXPECT_EQ(recipe.stages.at(1).optimizer.warmup, 6);
  EXPECT_EQ(recipe.stages.at(2).optimizer.warmup, 5);
  EXPECT_EQ(recipe.stages.at(3).optimizer.warmup, 7);
  EXPECT_EQ(recipe.stages.at(3).optimizer.learning_rate, 1);
  EXPECT_EQ(parse_error("finish: {<<: 3}"), "recipe.yaml:1: <<: found \"3\", expected a section to merge");
}

TEST(Config, AppliesOverridesAfterTheFile) {
  const std::string file = "stages:\n  - name: a\n    optimizer: &o {warmup: 1}\n  - name: b\n    optimizer: *o\n";
  const Recipe recipe = parse(file, {{"stages[1].optimizer.warmup=2", "stages[2].name=c", "finish.clip=null", "layers=[7, 8]",
                                      "layers[1]=9", "named.x.name=", "words=[\"a=b\"]", "stages[0].name=x y"}});
  EXPECT_EQ(recipe.stages.at(0).optimizer.warmup, 1) << "shared by an alias, changed in one place only";
  EXPECT_EQ(recipe.stages.at(1).optimizer.warmup, 2);
  EXPECT_EQ(recipe.stages.at(2).name, "c");
  EXPECT_EQ(recipe.stages.at(0).name, "x y");
  EXPECT_FALSE(recipe.finish.value().clip);
  EXPECT_EQ(recipe.layers, (std::vector<std::int64_t>{7, 9}));
  EXPECT_EQ(recipe.named.at("x").name, "");
  EXPECT_EQ(recipe.words, (std::vector<std::string>{"a=b"}));
}

TEST(Config, ErrorsNameTheOptionThatStandsForASetting) {
  EXPECT_EQ(option_error("", "--warm-up", "finish.wramup=3"), "--warm-up: no setting of recipe.yaml (did you mean \"warmup\"?)");
  EXPECT_EQ(option_error("", "--last", "last.x=3").find("--last: no setting of recipe.yaml (known here: stages, named, "), 0u);
  EXPECT_EQ(option_error("finish: {wramup: 1}", "--warm-up", "finish.wramup=3").find("--warm-up: no setting of "), 0u);
  EXPECT_EQ(option_error("lsat: {x: 1}", "--last", "lsat.y=3").find("recipe.yaml:1: lsat: unknown key"), 0u);
  EXPECT_EQ(option_error("", "--warm-up", "finish.warmup=many"),
            "--warm-up: finish.warmup: found \"many\", expected a whole number");
  Overrides overrides = std::vector<std::string>{"finish.warmup=1"};
  overrides.add("--warm-up", "finish.warmup=2");
  EXPECT_EQ(parse("", overrides).finish.value().warmup, 2);
}

TEST(Config, ErrorsNameTheOverride) {
  EXPECT_EQ(parse_error("finish: {warmup: 1}", {"finish.warmup=many"}),
            "--set finish.warmup=many: finish.warmup: found \"many\", expected a whole number");
  EXPECT_EQ(parse_error("", {"finish.wramup=3"}), "--set finish.wramup=3: finish.wramup: unknown key (did you mean \"warmup\"?)");
  EXPECT_EQ(parse_error("", {"finish.x.y=3"}).find("--set finish.x.y=3: finish.x: unknown key"), 0u);
  EXPECT_EQ(parse_error("", {"stages[1].name=a"}),
            "--set stages[1].name=a: found [1], expected at most [0], as the list has 0 entries");
  EXPECT_EQ(parse_error("layers: [1]", {"layers.x=1"}), "--set layers.x=1: found a list, expected the key \"x\" of a section");
  EXPECT_EQ(parse_error("finish: {}", {"finish[0]=1"}), "--set finish[0]=1: found a section, expected the entry [0] of a list");
  EXPECT_NE(parse_error("", {"finish.warmup=[1"}).find("--set finish.warmup=[1: no valid YAML: "), std::string::npos);
  for (const char* bad : {"finish", "=1", ".a=1", "a.=1", "a..b=1", "[0]=1", "a[x]=1", "a[]=1", "a[0=1", "a[99999999999]=1"})
    EXPECT_EQ(parse_error("", {bad}).find(concat("--set ", bad, ": ")), 0u) << bad;
}

TEST(Config, TellsAVisitWhereItReads) {
  std::string place, section;
  bool reading = false;
  Stage stage;
  parse_config("stages: [{}]", "r.yaml", {}, [&](ConfigVisitor& v) {
    place = v.place();
    reading = v.reading();
    v.list("stages", "", 0, [&](std::size_t, ConfigVisitor& element) { section = element.place(); }, [] {});
  });
  EXPECT_EQ(place, "r.yaml");
  EXPECT_EQ(section, "r.yaml: stages[0]");
  EXPECT_TRUE(reading);
}

Recipe example() {
  Recipe recipe;
  recipe.stages.resize(2);
  recipe.stages[0].name = "quoted: \"text\"\n\ttab \x01 \xc3\xbc # no comment";
  recipe.stages[1].optimizer = {"sgd", 1.0 / 3, -5, false, std::nullopt, 1e-300};
  recipe.stages[1].tokens = 1000000000000;
  recipe.named["no"].name = "null";
  recipe.named["a b"].name = "1e3";
  recipe.finish.emplace().learning_rate = INFINITY;
  for (std::int64_t i = 0; i < 100; ++i) recipe.layers.push_back(i);
  recipe.weights = {0.1, -0.0, 1e22};
  recipe.words = {"", "...", "- a", "true", "~", "a,b", "[", "x: y", " blank ", "-", "#", "&a", "*a", "!t", "%", "@", "`", "'"};
  return recipe;
}

TEST(Config, RoundTripsThroughYaml) {
  const std::string yaml = to_yaml(example());
  const Recipe read = parse(yaml);
  EXPECT_EQ(to_yaml(read), yaml);
  const Recipe expected = example();
  EXPECT_EQ(read.stages[0].name, expected.stages[0].name);
  EXPECT_EQ(read.stages[1].optimizer.learning_rate, 1.0 / 3);
  EXPECT_EQ(read.stages[1].tokens, expected.stages[1].tokens);
  EXPECT_FALSE(read.stages[1].optimizer.clip);
  EXPECT_EQ(read.named.at("no").name, "null");
  EXPECT_EQ(read.layers, expected.layers);
  EXPECT_EQ(read.weights, expected.weights);
  EXPECT_EQ(read.words, expected.words);
  EXPECT_EQ(to_yaml(parse(to_yaml(Recipe()))), to_yaml(Recipe()));
}

TEST(Config, DescribesEveryField) {
  Recipe recipe;
  const std::string text = describe_config([&](ConfigVisitor& v) { recipe.visit(v); });
  EXPECT_EQ(to_yaml(parse(text)), to_yaml(Recipe())) << text;
  EXPECT_EQ(to_yaml(recipe), to_yaml(Recipe())) << "the value is as it was";
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) EXPECT_LE(end - begin, 100u);
  for (const char* part :
       {"# What happens, one after the other (list of sections)\nstages: []\n", "# Largest norm of the gradient", "type: adamw\n",
        "With type: sgd", "momentum: 0.9", "NAME:", "(one of adamw, sgd)"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;

  Stage stage;
  const std::string present = describe_config([&](ConfigVisitor& v) { stage.visit(v); });
  EXPECT_NE(present.find("# How the weights are updated (section)\noptimizer:\n  # Rule of the update (one of adamw, sgd)\n"
                         "  type: adamw\n"),
            std::string::npos)
      << present;
}

TEST(Nearest, FindsTyposOnly) {
  EXPECT_EQ(nearest("lerning_rate", {"warmup", "learning_rate"}), "learning_rate");
  EXPECT_EQ(nearest("Warmpu", {"warmup", "learning_rate"}), "warmup");
  EXPECT_EQ(nearest("x", {"warmup", "learning_rate"}), "");
  EXPECT_EQ(nearest("", {"warmup"}), "");
  EXPECT_EQ(nearest("a", {}), "");
  EXPECT_EQ(nearest(std::string(100000, 'a'), {"a"}), "");
}

class ConfigFiles : public FolderTest {};

TEST_F(ConfigFiles, LoadsFiles) {
  const fs::path path = folder / "stage.yaml";
  write_file(path, "name: a\noptimizer: {warmup: 3}\n");
  EXPECT_EQ(load_config<Stage>(path, {{"tokens=5"}}).tokens, 5);
  write_file(path, "nmae: a\n");
  EXPECT_EQ(error_of([&] { load_config<Stage>(path); }), path.string() + ":1: nmae: unknown key (did you mean \"name\"?)");
  EXPECT_EQ(error_of([&] { load_config<Stage>(folder / "none"); }),
            (folder / "none").string() + ": cannot open: No such file or directory");
}

}  // namespace molt::config_test
