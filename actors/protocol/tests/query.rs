//! Queries mean what they say, and bad ones say where they are wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::DeviceId;
use protocol::query::{Facts, QUERY_DEPTH_MAX, Query};
use protocol::state::{Path, Scalar, Value};

const NOW_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Default)]
struct Device {
    leaves: BTreeMap<String, Value>,
    online: bool,
}

impl Facts for Device {
    fn id(&self) -> DeviceId {
        DeviceId([0xAB; 16])
    }

    fn name(&self) -> &str {
        "crane-7"
    }

    fn is_online(&self) -> bool {
        self.online
    }

    fn version(&self) -> u64 {
        12
    }

    fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.leaves.get(path.as_str()).map(Cow::Borrowed)
    }

    fn set_ms(&self, path: &Path) -> Option<u64> {
        self.leaves.contains_key(path.as_str()).then_some(NOW_MS - 600_000)
    }
}

fn crane() -> Device {
    let text = |text: &str| Value::from(text.to_owned());
    let roles = ["relay", "gateway"].map(|role| Scalar::Text(role.into()));
    let leaves = [
        ("tags/site", text("north")),
        ("tags/rack", text("007")),
        ("tags/roles", Value::List(roles.into())),
        ("tags/groups/crossings", Value::from(true)),
        ("reported/temp", Value::float(71.5).expect("finite")),
        ("reported/count", Value::from(9_007_199_254_740_993)),
        ("reported/on", Value::from(true)),
    ];
    let leaves = leaves.into_iter().map(|(path, value)| (path.to_owned(), value));
    Device { leaves: leaves.collect(), online: true }
}

fn means(query: &str) -> bool {
    let query: Query = query.parse().unwrap_or_else(|error| panic!("{query}: {error}"));
    query.matches(&crane(), NOW_MS)
}

#[test]
fn a_query_means_what_it_says() {
    let cases = [
        ("", true),
        ("tags/site = north", true),
        ("tags/site = \"north\"", true),
        ("tags/site != north", false),
        ("tags/site ^= no", true),
        ("tags/site > a", false),
        ("\"tags/rack\" = 007", true),
        ("tags/rack = 007", true),
        ("tags/rack = 7", false),
        ("tags/roles = relay", true),
        ("tags/roles in (sensor, gateway)", true),
        ("tags/roles in (sensor)", false),
        ("reported/temp > 71", true),
        ("reported/temp >= 71.5 and reported/temp <= 71.5", true),
        ("reported/temp = north", false),
        ("reported/count = 9007199254740993", true),
        ("reported/count = 9007199254740992", false),
        ("reported/on", false),
        ("reported/on = true", true),
        ("tags/zone = a", false),
        ("tags/zone != a", false),
        ("not tags/zone = a", true),
        ("has tags/zone", false),
        ("has tags/site and not has tags/zone", true),
        ("group = crossings", true),
        ("group != crossings", false),
        ("group in (a, crossings)", true),
        ("online", true),
        ("not online", false),
        ("online = false", false),
        ("name ^= \"crane-\"", true),
        ("id = abababababababababababababababab", true),
        ("version >= 12", true),
        ("age(reported/temp) > 9m", true),
        ("age(reported/temp) > 10m", false),
        ("age(reported/temp) <= 600s", true),
        ("age(reported/none) > 1s", false),
        ("online or online and not online", true),
        ("(online or online) and not online", false),
        ("not online or online", true),
    ];
    for (query, wanted) in cases {
        if query == "reported/on" {
            assert!(query.parse::<Query>().is_err(), "a leaf alone is no test");
            continue;
        }
        assert_eq!(means(query), wanted, "{query}");
    }
}

#[test]
fn a_bad_query_says_where_it_is_wrong() {
    let cases = [
        ("tags/site north", "expected a comparison such as = or in at character 11"),
        ("tags/site =", "expected a value at character 12"),
        ("site = north", "\"site\" is no field"),
        ("tags/site = north and", "expected a path or a field at character 22"),
        ("(online", "expected a closing bracket at character 8"),
        ("online)", "expected and, or, or the end at character 7"),
        ("age(a/b) > soon", "expected a span of time, such as 10m at character 12"),
        ("a/b = \"open", "a quote has no end at character 7"),
        ("a/b = north & online", "'&' means nothing at character 13"),
        ("tags/../site = a", "at character 1"),
    ];
    for (query, wanted) in cases {
        let error = query.parse::<Query>().expect_err(query).to_string();
        assert!(error.contains(wanted), "{query}: {error}");
    }
}

#[test]
fn a_query_says_what_it_looks_at() {
    let looks = |query: &str| {
        let looks = query.parse::<Query>().expect("a query").looks_at();
        (looks.at_name, looks.at_presence, looks.at_age)
    };
    assert_eq!(looks("tags/a = 1 and has b/c"), (false, false, false));
    assert_eq!(looks("not (online or name = a)"), (true, true, false));
    assert_eq!(looks("tags/a = 1 or age(a/b) > 1s"), (false, false, true));
}

#[test]
fn a_query_is_bounded() {
    let deep = format!("{}online", "not ".repeat(QUERY_DEPTH_MAX));
    assert!(deep.parse::<Query>().expect_err("deep").to_string().contains("nested deeper"));
    assert!("x".repeat(5_000).parse::<Query>().is_err());
    let wide = vec!["online"; 300].join(" and ");
    assert!(wide.parse::<Query>().is_ok());
}

/// Random tests, some of which hold.
fn test() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "online",
        "tags/site = north",
        "tags/site = south",
        "reported/temp > 70",
        "reported/temp > 80",
        "has tags/zone",
        "group = crossings",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = text.parse::<Query>();
    }

    #[test]
    fn words_of_the_language_never_make_it_panic(words in prop::collection::vec(
        prop::sample::select(vec!["and", "or", "not", "in", "has", "age", "(", ")", ",", "=", ">", "a/b", "1", "'x'", "10m"]), 0..40)) {
        let _ = words.join(" ").parse::<Query>();
    }

    #[test]
    fn not_and_or_follow_the_laws_of_logic(a in test(), b in test()) {
        prop_assert_eq!(means(&format!("not ({a} and {b})")), means(&format!("not {a} or not {b}")));
        prop_assert_eq!(means(&format!("not ({a} or {b})")), means(&format!("not {a} and not {b}")));
        prop_assert_eq!(means(&format!("not not ({a})")), means(&a));
    }
}
