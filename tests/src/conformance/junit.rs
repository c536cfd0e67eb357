// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results in the XML format of JUnit, which CI systems read: a suite for each category.

use std::fmt::Write as _;
use std::time::Duration;

use super::runner::{CaseResult, Summary, Verdict};

pub fn report(summary: &Summary) -> String {
    let mut categories: Vec<&str> =
        summary.results.iter().map(|result| result.category.as_str()).collect();
    categories.sort_unstable();
    categories.dedup();
    let mut suites = String::new();
    for category in categories {
        let of_category = summary.results.iter().filter(|result| result.category == category);
        let results: Vec<_> = of_category.collect();
        let cases: String = results.iter().map(|result| case(result)).collect();
        let attributes = format!("name=\"{}\"{}", escaped(category), counts(&results));
        let _ = writeln!(suites, "  <testsuite {attributes}>\n{cases}  </testsuite>");
    }
    let all: Vec<_> = summary.results.iter().collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"QMP conformance\"{}>\n{suites}</testsuites>\n",
        counts(&all)
    )
}

fn counts(results: &[&CaseResult]) -> String {
    let count = |is: fn(&Verdict) -> bool| results.iter().filter(|r| is(&r.verdict)).count();
    let failures = count(|verdict| matches!(verdict, Verdict::Failed { .. }));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let time: Duration = results.iter().map(|result| result.duration).sum();
    format!(
        " tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\"",
        results.len(),
        time.as_secs_f64()
    )
}

fn case(result: &CaseResult) -> String {
    let outcome = match &result.verdict {
        Verdict::Passed => String::new(),
        Verdict::Failed { why, traffic } => format!(
            "      <failure message=\"{}\">{}</failure>\n",
            escaped(why),
            escaped(&traffic.join("\n"))
        ),
        Verdict::Skipped(reason) => {
            format!("      <skipped message=\"{}\"/>\n", escaped(reason))
        }
    };
    format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">\n{outcome}    </testcase>\n",
        escaped(&result.category),
        escaped(&result.name),
        result.duration.as_secs_f64()
    )
}

/// The text as character data and between double quotes. What XML cannot hold at all becomes `?`.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_is_a_case_of_its_categorys_suite() {
        let result = |name: &str, verdict| CaseResult {
            category: "oob".to_owned(),
            name: name.to_owned(),
            verdict,
            duration: Duration::from_millis(1500),
        };
        let failed = Verdict::Failed {
            why: "expected \"<int>\" & no \u{1}".to_owned(),
            traffic: vec!["> {}".to_owned(), "< []".to_owned()],
        };
        let results = vec![
            result("one", Verdict::Passed),
            result("two", failed),
            CaseResult { category: "fd".to_owned(), ..result("x", Verdict::Skipped("why".into())) },
        ];
        assert_eq!(
            report(&Summary { results }),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="QMP conformance" tests="3" failures="1" errors="0" skipped="1" time="4.500">
  <testsuite name="fd" tests="1" failures="0" errors="0" skipped="1" time="1.500">
    <testcase classname="fd" name="x" time="1.500">
      <skipped message="why"/>
    </testcase>
  </testsuite>
  <testsuite name="oob" tests="2" failures="1" errors="0" skipped="0" time="3.000">
    <testcase classname="oob" name="one" time="1.500">
    </testcase>
    <testcase classname="oob" name="two" time="1.500">
      <failure message="expected &quot;&lt;int&gt;&quot; &amp; no ?">&gt; {}
&lt; []</failure>
    </testcase>
  </testsuite>
</testsuites>
"#
        );
    }
}
