use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::generator::tests::{all, hash, json};

const START_MS: i64 = 1_700_000_000_000;
const SPAN_MS: u64 = 600_000;

fn spec() -> Spec {
    Spec { seed: 1, keys: 1_000, zipf: 0.0, disorder_ms: 4_000, size_bytes: 200, partitions: 4, close: true }
}

/// The records of a stream of so many orders.
fn records(spec: &Spec, count: u64) -> Vec<Record> {
    let mut stream = Orders::new(spec.clone(), Timeline::spanning(START_MS, SPAN_MS, count)).unwrap();
    all(&mut stream)
}

#[test]
fn an_order_looks_like_this() {
    let all = records(&spec(), 100_000);
    let text = |record: &Record| String::from_utf8(record.value.clone()).unwrap();
    insta::assert_snapshot!(format!("{}\n{}\n{}", text(&all[0]), text(&all[1]), text(all.last().unwrap())));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let hashes = [spec(), Spec { zipf: 1.1, ..spec() }, Spec { seed: 2, ..spec() }];
    let hashes = hashes.map(|spec| format!("{:016x}", hash(&records(&spec, 20_000))));
    assert_eq!(hashes, ["a84a7750ce557fd6", "789576ac3f851778", "65e65e9d3838df31"]);
}

#[test]
fn every_value_is_as_long_as_asked_for_and_says_what_its_key_and_timestamp_say() {
    for size_bytes in [200, 173, 5_000] {
        let spec = Spec { size_bytes, ..spec() };
        for (index, record) in records(&spec, 5_000).iter().enumerate() {
            assert_eq!(record.value.len(), size_bytes);
            let json = json(record);
            assert_eq!(json["order_id"], format!("order-{index:010}"));
            assert_eq!(json["customer"].as_str().unwrap().as_bytes(), record.key);
            assert_eq!(json["created_at"], record.timestamp_ms);
            assert_eq!(key::partition(Some(&record.key), 4), Some(record.partition));
            assert!(json["amount"].is_u64() && json["currency"] == "EUR" && json["note"].is_string());
        }
    }
}

#[test]
fn sizes_that_no_order_has_are_refused() {
    let new = |spec: Spec, count| Orders::new(spec, Timeline::spanning(START_MS, SPAN_MS, count)).err();
    let of = |size_bytes| Spec { size_bytes, ..spec() };
    let told = new(of(100), 10).unwrap();
    let least: usize = told.split_whitespace().rev().nth(2).unwrap().parse().unwrap();
    assert_eq!(told, format!("a size of 100 bytes: these orders take {least} to 999000"));
    assert!(new(of(least - 1), 10).is_some() && new(of(SIZE_BYTES_MAX + 1), 10).is_some());
    assert!(new(of(SIZE_BYTES_MAX), 10).is_none());
    // The least is enough for the longest note.
    assert!(records(&of(least), 10_000).iter().all(|record| record.value.len() == least));
    // Long numbers take more.
    let long = Spec { keys: 20_000_000, ..of(least) };
    assert!(new(long, 10).unwrap().contains(&format!("take {} to", least + 2)));
    assert!(new(of(least), 20_000_000_000).unwrap().contains(&format!("take {} to", least + 1)));
}

/// What a text between quotes means.
fn decoded(json: &str) -> String {
    serde_json::from_str(&format!("\"{json}\"")).unwrap()
}

#[test]
fn shares_are_as_documented() {
    const COUNT: u64 = 100_000;
    let all = records(&spec(), COUNT);
    let (mut status, mut customers) = (BTreeMap::new(), BTreeMap::new());
    let (mut odd, mut notes, mut amounts) = (0, BTreeSet::new(), (u64::MAX, 0, 0));
    for record in &all[..COUNT as usize] {
        let json = json(record);
        *status.entry(json["status"].as_str().unwrap().to_owned()).or_insert(0_u64) += 1;
        *customers.entry(record.key.clone()).or_insert(0_u64) += 1;
        let note = json["note"].as_str().unwrap().to_owned();
        if !note.bytes().all(|byte| byte.is_ascii_lowercase()) {
            odd += 1;
            notes.insert(ODD.iter().position(|odd| note.starts_with(&decoded(odd))));
        }
        let amount = json["amount"].as_u64().unwrap();
        amounts = (amounts.0.min(amount), amounts.1.max(amount), amounts.2 + amount);
    }
    let near = |seen: u64, expected: u64| seen.abs_diff(expected) * 50 < expected;
    assert!(near(status["paid"], COUNT / 2), "{status:?}");
    assert!(near(status["pending"], COUNT / 4) && near(status["cancelled"], COUNT / 4), "{status:?}");
    assert!((1_800..2_200).contains(&odd), "{odd} odd notes");
    assert_eq!(notes, (0..ODD.len()).map(Some).collect());
    assert!(amounts.0 < 10 && amounts.1 > AMOUNT_MAX - 10 && amounts.1 <= AMOUNT_MAX, "{amounts:?}");
    assert!(near(amounts.2, COUNT * AMOUNT_MAX / 2), "{amounts:?}");
    // 100 orders for each of 1,000 customers, by six standard deviations.
    assert_eq!(customers.len(), 1_000);
    assert!(customers.values().all(|count| (40..160).contains(count)));

    let skewed = records(&Spec { zipf: 1.0, close: false, ..spec() }, COUNT);
    let of = |customer: &str| skewed.iter().filter(|record| record.key == customer.as_bytes()).count() as f64;
    let harmonic: f64 = (1..=1_000).map(|k| 1.0 / f64::from(k)).sum();
    for (rank, customer) in [(1.0, "customer-000000"), (2.0, "customer-000001"), (10.0, "customer-000009")] {
        let expected = COUNT as f64 / harmonic / rank;
        assert!((of(customer) / expected - 1.0).abs() < 0.1, "{customer}: {} of {expected}", of(customer));
    }
}

#[test]
fn no_order_is_later_than_the_disorder_allows() {
    let all = records(&Spec { close: false, ..spec() }, 50_000);
    let (mut newest, mut furthest) = (i64::MIN, 0);
    for record in &all {
        newest = newest.max(record.timestamp_ms);
        furthest = furthest.max(newest - record.timestamp_ms);
        assert!(record.timestamp_ms >= START_MS);
    }
    assert!((3_900..=4_000).contains(&furthest), "{furthest}");
    let last_ms = START_MS + SPAN_MS as i64;
    assert!((last_ms - 1_000..=last_ms).contains(&newest), "{newest}");

    let ordered = records(&Spec { disorder_ms: 0, close: false, ..spec() }, 50_000);
    assert!(ordered.is_sorted_by_key(|record| record.timestamp_ms));
    assert_eq!((ordered[0].timestamp_ms, ordered.last().unwrap().timestamp_ms), (START_MS, last_ms));
}

#[test]
fn each_partition_is_closed_by_a_customer_of_its_own() {
    for partitions in [1, 4, 64] {
        let all = records(&Spec { partitions, ..spec() }, 3_000);
        let (orders, closing) = all.split_at(3_000);
        let customers: BTreeSet<&[u8]> = orders.iter().map(|record| record.key.as_slice()).collect();
        let places: Vec<i32> = closing.iter().map(|record| record.partition).collect();
        assert_eq!(places, (0..partitions).collect::<Vec<_>>());
        for record in closing {
            let json = json(record);
            assert_eq!((json["status"].as_str(), json["amount"].as_u64()), (Some("cancelled"), Some(0)));
            assert_eq!(record.timestamp_ms, START_MS + SPAN_MS as i64 + 3_600_000);
            assert!(!customers.contains(record.key.as_slice()));
            assert_eq!(key::partition(Some(&record.key), partitions), Some(record.partition));
        }
    }
    assert_eq!(records(&Spec { close: false, ..spec() }, 3_000).len(), 3_000);
}
