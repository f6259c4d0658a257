#include "engine/model/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "tests/model/text/cpu_time.h"

namespace tandem {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

const std::vector<ChatMessage> kMessages = {{"user", "Hi"}, {"assistant", "Yo"}};

// The text, or "code: message" of the error.
std::string Outcome(const std::string& source) {
  try {
    return ChatTemplate::Parse(source).Render(kMessages, {"<s>", "</s>", true});
  } catch (const Error& error) {
    return std::string(ToString(error.code())) + ": " + error.what();
  }
}

std::string ParseOutcome(const std::string& source) {
  try {
    ChatTemplate::Parse(source);
  } catch (const Error& error) {
    return std::string(ToString(error.code())) + ": " + error.what();
  }
  return "parsed";
}

TEST(ChatTemplateTest, RendersMessages) {
  EXPECT_EQ(Outcome("{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}\n"
                    "{% endfor %}{{ eos_token }}{% if add_generation_prompt %}!{% endif %}"),
            "<s>user:Hi\nassistant:Yo\n</s>!");
}

TEST(ChatTemplateTest, RaiseExceptionIsAnErrorWithTheTemplatesMessage) {
  EXPECT_EQ(Outcome("{{ raise_exception('Roles must ' + 'alternate') }}"),
            "invalid-argument: chat template: Roles must alternate");
}

TEST(ChatTemplateTest, ConstructsOutsideTheSubsetAreNamedWithTheirLineWhenParsed) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% call f(x) %}{% endcall %}", "line 2: '{% call %}'"},
      {"{% filter upper %}{% endfilter %}", "'{% filter %}'"},
      {"{% macro f() %}\n{{ caller() }}{% endmacro %}", "line 2: 'caller' in a macro"},
      {"{% macro f() %}{{ varargs }}{% endmacro %}", "'varargs' in a macro"},
      {"{% macro f() %}{{ kwargs|length }}{% endmacro %}", "'kwargs' in a macro"},
      {"{% for x in y %}\n{% macro f() %}{% endmacro %}{% endfor %}",
       "line 2: a macro inside a loop, a macro"},
      {"{% macro f() %}{% macro g() %}{% endmacro %}{% endmacro %}",
       "a macro inside a loop, a macro"},
      {"{% set x %}{% macro f() %}{% endmacro %}{% endset %}", "or another scope"},
      {"{% macro f() %}{% endmacro %}{{ g() }}", "the function 'g()'"},
      {"{% macro f() %}{% endmacro %}{{ x.f() }}", "the method '.f()'"},
      {"\n\n{% include 'x' %}", "line 3: '{% include %}'"},
      {"{% import 'x' as y %}", "'{% import %}'"},
      {"{% block b %}{% endblock %}", "'{% block %}'"},
      {"{% raw %}{{ x }}{% endraw %}", "{% raw %}"},
      {"{% set x|upper %}a{% endset %}", "a filter on '{% set %}'"},
      {"{% for x in y recursive %}{% endfor %}", "a recursive loop"},
      {"{{ 2 ** 3 }}", "the operator '**'"},
      {"{{ x|groupby('y') }}", "the filter 'groupby'"},
      {"{{ x is callable }}", "the test 'is callable'"},
      {"{{ x.encode('utf-8') }}", "the method '.encode()'"},
      {"{{ cycler(1, 2) }}", "the function 'cycler()'"},
      {"{{ loop.cycle(1, 2) }}", "the method '.cycle()'"},
      {"{{ x[0](1) }}", "calling an expression"},
      {"{{ range(*x) }}", "the argument list '*...'"},
      {"{{ 0x1f }}", "the number '0x...'"},
      {"{{ 99999999999999999999 }}", "the number 99999999999999999999"},
      {"{{ '\\N{DASH}' }}", "the escape"},
  };
  for (const auto& [source, construct] : cases) {
    EXPECT_THAT(ParseOutcome(source),
                AllOf(StartsWith("unsupported: chat template: line "), HasSubstr(construct)))
        << source;
  }
}

TEST(ChatTemplateTest, ConstructsOutsideTheSubsetAreNamedWhenOnlyRunningShowsThem) {
  EXPECT_THAT(Outcome("\n{{ strftime_now('%d') }}"),
              AllOf(StartsWith("unsupported: "), HasSubstr("line 2: strftime_now()")));
  EXPECT_THAT(Outcome("{{ messages[0].items }}"), HasSubstr("'.items' of a dict without a call"));
  EXPECT_THAT(Outcome("{{ '%d' % 1 }}"), HasSubstr("formatting with '%'"));
  for (const char* field : {"{a}", "{0.real}", "{0[0]}", "{:5}", "{!r}", "{0:{1}}"}) {
    EXPECT_THAT(Outcome(std::string("{{ '") + field + "'.format(1, 2) }}"),
                AllOf(StartsWith("unsupported: "), HasSubstr("in a format")))
        << field;
  }
  EXPECT_THAT(Outcome("{{ messages|min(attribute='a.b') }}"),
              HasSubstr("attribute of an attribute"));
  EXPECT_THAT(Outcome("{{ messages|unique(attribute='a.b') }}"),
              HasSubstr("attribute of an attribute"));
  EXPECT_THAT(Outcome("{{ '1'|from_json }}"), HasSubstr("the filter 'from_json'"));
  EXPECT_THAT(Outcome("{{ '\xC3\xA4'|upper }}"), HasSubstr("text beyond ASCII"));
  EXPECT_THAT(Outcome("{{ 9223372036854775807 + 1 }}"), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(Outcome("{{ range }}"), HasSubstr("printing a function"));
  const std::string macro = "{% macro f(a, b=1) %}{{ a }}{% endmacro %}";
  EXPECT_THAT(Outcome(macro + "{{ f }}"), HasSubstr("printing a function"));
  EXPECT_THAT(Outcome(macro + "{{ f.arguments }}"), HasSubstr("'.arguments' of a function"));
  EXPECT_THAT(Outcome(macro + "{% set f = range %}{{ f(1) }}"),
              HasSubstr("by another name, 'f()'"));
  EXPECT_THAT(Outcome("{{ messages|tojson(4) }}"), HasSubstr("'tojson' with an argument"));
}

TEST(ChatTemplateTest, WhatIsNoJinjaIsNamedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"\n{% if x %}", "line 2: '{% if %}' has no end"},
      {"{% for x in y %}{% else %}", "'{% else %}' has no end"},
      {"{% endif %}", "'{% endif %}' has nothing to belong to"},
      {"\n{% break %}", "line 2: '{% break %}' outside a loop"},
      {"{% continue %}", "'{% continue %}' outside a loop"},
      {"{{ x", "wanted '}}'"},
      {"{{ }}", "unexpected '}}', wanted an expression"},
      {"{{ x y }}", "wanted '}}'"},
      {"{{ 'abc }}", "a string has no end"},
      {"{# abc", "has no end '#}'"},
      {"{{ (1 }}", "unexpected '}'"},
      {"{{ 1) }}", "unexpected ')'"},
      {"{{ x. }}", "wanted a name"},
      {"{% if %}a{% endif %}", "wanted an expression"},
      {"{% for 1 in x %}{% endfor %}", "wanted a name"},
      {"{% for loop in x %}{% endfor %}", "'loop' cannot be"},
      {"{% set true = 1 %}", "'true' cannot be assigned to"},
      {"{{ x ? y }}", "unexpected '?'"},
      {"{{ f\xC3\xBCr }}", "unexpected '\xC3\xBC'"},
      {"{{ x is defined is defined }}", "cannot be chained"},
      {"{{ range(a=1, 2) }}", "follows one with a name"},
      {"{{ '\\ud800' }}", "no character"},
      {"\n{% macro f() %}", "line 2: '{% macro %}' has no end"},
      {"{% macro f %}{% endmacro %}", "wanted '('"},
      {"{% macro f(a=1, b) %}{% endmacro %}", "follows one that has one"},
      {"{% macro f(a, b, a) %}{% endmacro %}", "two parameters are called 'a'"},
      {"{% for x in y %}{% set z %}{% break %}{% endset %}{% endfor %}", "outside a loop"},
  };
  for (const auto& [source, what] : cases) {
    EXPECT_THAT(ParseOutcome(source),
                AllOf(StartsWith("model-file: chat template: line "), HasSubstr(what)))
        << source;
  }
}

TEST(ChatTemplateTest, MistakesAtRunTimeNameTheirLine) {
  EXPECT_THAT(Outcome("a\nb\n{{ nothing.x }}"),
              AllOf(StartsWith("invalid-argument: "), HasSubstr("line 3: 'nothing' is undefined")));
  EXPECT_THAT(Outcome("{{ 1 +\n 'a' }}"), HasSubstr("cannot add int and str"));
  const std::string macro = "{% macro f(a, b=1) %}{{ a.x }}\n{% endmacro %}\n";
  EXPECT_THAT(Outcome(macro + "{{ f(1, 2, 3) }}"), HasSubstr("line 3: the macro 'f' takes 2"));
  EXPECT_THAT(Outcome(macro + "{{ f(1, a=2) }}"), HasSubstr("cannot take the argument 'a'"));
  EXPECT_THAT(Outcome(macro + "{{ f(1, c=2) }}"), HasSubstr("cannot take the argument 'c'"));
  EXPECT_THAT(Outcome(macro + "{{ f() }}"),
              HasSubstr("line 1: the parameter 'a' was not provided"));
  EXPECT_THAT(Outcome(macro + "{% set f = 1 %}{{ f() }}"),
              HasSubstr("'f' is a int, not a function"));
  EXPECT_THAT(Outcome("{{ f() }}" + macro), HasSubstr("line 1: 'f' is undefined"));
}

TEST(ChatTemplateTest, InvalidUtf8IsReplaced) {
  EXPECT_EQ(ChatTemplate::Parse("{{ messages[0].content }}\xFF")
                .Render({{"user", "a\xC3"}}, ChatTemplateOptions()),
            "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

// Each of these would take very long, or very much memory, or all of the stack.
TEST(ChatTemplateTest, RunawayTemplatesAreStopped) {
  const auto times = [](const std::string& unit, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += unit;
    return out;
  };
  const std::string ns = "{% set ns = namespace(v=[1], s='x') %}{% for i in range(60) %}";
  const std::string end = "{% endfor %}";
  const std::pair<std::string, const char*> cases[] = {
      {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps"},
      {"{{ 'x' * 9999999999 }}", "MiB"},
      {"{{ [1] * 9999999999 }}", "MiB"},
      {"{{ 'x' * 9999999 }}{{ 'x' * 9999999 }}", "MiB"},
      {ns + "{% set ns.s = ns.s ~ ns.s %}" + end, "MiB"},
      {ns + "{% set ns.s = ns.s.replace('x', 'xxxxxxxx') %}" + end, ""},
      {ns + "{% set ns.v = [ns.v] %}" + end, "nests values too deeply"},
      {"{% set ns = namespace(v=[1]) %}{% for i in range(30) %}{% set ns.v = [ns.v, ns.v] %}"
       "{% endfor %}{{ ns.v }}",
       "steps"},
      {"{% set ns = namespace(v=[1]) %}{% for i in range(30) %}{% set ns.v = [ns.v, ns.v] %}"
       "{% endfor %}{{ ns.v|tojson(indent=64) }}",
       ""},
      {"{% set ns = namespace() %}{% set ns.a = ns %}", "a namespace as a part"},
      {"{% set ns = namespace() %}{% set ns.a = [ns] %}", "a namespace as a part"},
      {"{% set s = 'ab' * 9999999 %}{% for i in range(99999) %}{{ 'x' in s }}{% endfor %}",
       "steps"},
      {"{{ " + times("(", 5000) + "1" + times(")", 5000) + " }}", "nesting deeper"},
      {"{{ " + times("[", 5000) + times("]", 5000) + " }}", "nesting deeper"},
      {"{{ " + times("not ", 5000) + "1 }}", "nesting deeper"},
      {"{{ " + times("-", 5000) + "1 }}", "nesting deeper"},
      {"{{ " + times("1 if 1 else ", 5000) + "1 }}", "nesting deeper"},
      {"{{ 1" + times(" + 1", 50000) + " }}", "deeper than"},
      {"{{ x" + times(".x", 50000) + " }}", "deeper than"},
      {"{{ x" + times("|trim", 50000) + " }}", "deeper than"},
      {times("{% if 1 %}", 5000) + times("{% endif %}", 5000), "nesting deeper"},
      {times("x", 600 * 1024), "a template of"},
      {"{% set s = range(99999)|list %}{% for i in range(99999) %}{% set t = s|sort %}{% endfor %}",
       ""},
      {"{{ range(99999)|unique|length }}", "steps"},
      {"{% set s = [['x' * 999999] * 9]|map(attribute=0)|list %}"
       "{{ (s + [s[0] ~ 'y'] * 9999)|unique|length + ['a']|min }}",
       ""},
      {"{% set r = range(99999) %}{% for i in r %}{% set t = r|min + r|max %}{% endfor %}",
       "steps"},
      {"{{ ('{0}' * 99999).format('x' * 9999) }}", "MiB"},
      {"{{ ('{{' * 9999999).format(1) }}", "steps"},
      {"{{ ('{' ~ 'x' * 9999999 ~ '}').format(1) }}", "in a format"},
      {"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "too deeply"},
      {"{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
       "too deeply"},
      {"{% macro f(x=f()) %}{% endmacro %}{{ f() }}", "too deeply"},
      {"{% macro f(x) %}{{ " + times("[", 20) + "f(x)" + times("]", 20) +
           " }}{% endmacro %}{{ f(1) }}",
       "too deeply"},
      // Each level calls the next one twice, with twice the text, or with loops.
      {"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
       "steps"},
      {"{% macro f(n) %}{% if n %}{{ f(n - 1) * 2 }}{% else %}xxxxxxxx{% endif %}{% endmacro %}"
       "{{ f(40) }}",
       "MiB"},
      {"{% macro f(n) %}" + times("{% for i in range(999) %}", 30) + "x" +
           times("{% endfor %}", 30) + "{% endmacro %}{{ f(1) }}",
       ""},
      {"{% macro f(" +
           [] {
             std::string names = "a";
             for (int i = 0; i < 30'000; ++i) names += ",a" + std::to_string(i);
             return names;
           }() +
           ") %}{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
       "over 100 parameters"},
  };
  const CpuTime spent;
  for (const auto& [source, what] : cases) {
    const std::string outcome = Outcome(source);
    EXPECT_THAT(outcome, AllOf(HasSubstr("chat template: line "), HasSubstr(what)))
        << source.substr(0, 100);
  }
  EXPECT_LT(spent.Seconds(), 60.0);
}

TEST(ChatTemplateTest, LongConversationsAreWithinTheLimits) {
  const std::vector<ChatMessage> messages(20'000, {"user", std::string(300, 'x')});
  const ChatTemplate chat = ChatTemplate::Parse(
      "{%- set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'user' and not "
      "m.tool_calls %}{% set ns.n = ns.n + 1 %}{{ '<|im_start|>' + m.role + '\\n' + m.content | "
      "trim + '<|im_end|>\\n' }}{% endif %}{% endfor %}{{ ns.n }}");
  EXPECT_TRUE(chat.Render(messages, ChatTemplateOptions()).ends_with("<|im_end|>\n20000"));
}

// Changes one place of a template: flips, cuts, doubles, or pastes from another.
std::string Mutate(std::string source, const std::vector<std::string>& corpus,
                   std::mt19937& random) {
  static const std::vector<std::string> pieces = {"{{",
                                                  "}}",
                                                  "{%",
                                                  "%}",
                                                  "{#",
                                                  "#}",
                                                  "-",
                                                  "'",
                                                  "\"",
                                                  "(",
                                                  ")",
                                                  "[",
                                                  "]",
                                                  "{",
                                                  "}",
                                                  "|",
                                                  ".",
                                                  ":",
                                                  ",",
                                                  "~",
                                                  "=",
                                                  "==",
                                                  " in ",
                                                  " is ",
                                                  " not ",
                                                  " if ",
                                                  " else ",
                                                  "{% endif %}",
                                                  "{% endfor %}",
                                                  "{% for x in messages %}",
                                                  "{% if x %}",
                                                  "{% set x = ",
                                                  "\\",
                                                  "\n",
                                                  "9",
                                                  "1e9",
                                                  "\xC3",
                                                  "range(",
                                                  "|join",
                                                  "[::",
                                                  "messages",
                                                  "{% macro m(x, y=1) %}",
                                                  "{% endmacro %}",
                                                  "{{ m(",
                                                  "*"};
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % (n + 1)); };
  const size_t at = below(source.size());
  switch (random() % 5) {
    case 0:
      source.insert(at, pieces[random() % pieces.size()]);
      break;
    case 1:
      source.erase(at, random() % 12);
      break;
    case 2:
      source.insert(at, source.substr(below(source.size()), random() % 40));
      break;
    case 3: {
      const std::string& other = corpus[random() % corpus.size()];
      source.insert(at, other.substr(below(other.size()), random() % 60));
      break;
    }
    default:
      if (at < source.size()) source[at] = static_cast<char>(random() % 256);
  }
  return source;
}

TEST(ChatTemplateTest, MutatedTemplatesNeverCrash) {
  std::ifstream file("tests/golden/chat_template/cases.json");
  ASSERT_TRUE(file) << "run from the repository's root";
  const nlohmann::json golden = nlohmann::json::parse(file);
  std::vector<std::string> corpus;
  for (const auto& [name, source] : golden.at("templates").items()) corpus.push_back(source);
  for (const auto& snippet : golden.at("snippets")) corpus.push_back(snippet.at(0));
  std::mt19937 random(2024);
  int rendered = 0;
  int refused = 0;
  const CpuTime spent;
  for (int round = 0; round < 6000; ++round) {
    std::string source = corpus[random() % corpus.size()];
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) {
      source = Mutate(std::move(source), corpus, random);
    }
    try {
      ChatTemplate::Parse(source).Render(kMessages, {"<s>", "</s>", true});
      ++rendered;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(rendered, 500);
  EXPECT_GT(refused, 500);
  EXPECT_LT(spent.Seconds(), 60.0);
}

}  // namespace
}  // namespace tandem
