//! Comparison of values in the encoding of the manifests.

use serde_json::Value as Json;

/// Where two values first differ; `None` when they are equal. Sets have no order, and a value that
/// encloses itself need not say where it begins.
#[must_use]
pub fn difference(found: &Json, expected: &Json) -> Option<String> {
    differs(found, expected, "")
}

fn differs(found: &Json, expected: &Json, at: &str) -> Option<String> {
    match (found, expected) {
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| differs(a, b, &format!("{at}.{i}")))
        }
        (Json::Object(a), Json::Object(b)) => {
            let kind = b.get("$type").and_then(Json::as_str);
            if kind == Some("ref") && a.get("$type") == b.get("$type") {
                return None;
            }
            if let Some(key) = a.keys().find(|k| !b.contains_key(*k)) {
                return Some(format!("{at}: the key {key:?} is not expected: {}", a[key]));
            }
            if let Some(key) = b.keys().find(|k| !a.contains_key(*k)) {
                return Some(format!("{at}: the key {key:?} is missing, expected {}", b[key]));
            }
            if let (Some("set" | "frozenset"), Some(Json::Array(a)), Some(Json::Array(b))) =
                (kind, a.get("value"), b.get("value"))
            {
                return differs(&sorted(a), &sorted(b), &format!("{at}.value"));
            }
            b.iter().find_map(|(key, b)| differs(&a[key], b, &format!("{at}.{key}")))
        }
        _ if found == expected => None,
        _ => Some(format!("{at}: found {found}, expected {expected}")),
    }
}

fn sorted(items: &[Json]) -> Json {
    let mut items = items.to_vec();
    items.sort_by_key(Json::to_string);
    Json::Array(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_counts_except_in_sets() {
        assert_eq!(difference(&json!([1, 2]), &json!([1, 2])), None);
        assert!(difference(&json!([1, 2]), &json!([2, 1])).is_some());
        let set = |items: [i32; 2]| json!({"$type": "set", "value": items});
        assert_eq!(difference(&set([1, 2]), &set([2, 1])), None);
        assert!(difference(&set([1, 2]), &set([3, 1])).is_some());
    }

    #[test]
    fn the_place_of_a_difference_is_told() {
        let why = difference(&json!({"a": [1, 2.5]}), &json!({"a": [1, 2]})).unwrap();
        assert_eq!(why, ".a.1: found 2.5, expected 2");
        assert!(difference(&json!({"a": 1}), &json!({})).unwrap().contains("not expected"));
        assert!(difference(&json!({}), &json!({"a": 1})).unwrap().contains("missing"));
    }

    #[test]
    fn a_reference_need_not_say_where() {
        let found = json!({"$type": "ref", "value": "a"});
        assert_eq!(difference(&found, &json!({"$type": "ref"})), None);
    }
}
