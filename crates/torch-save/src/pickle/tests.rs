//! The machine on pickles written by hand.

use ckptkit_core::{Limits, Result, Section};

use super::bigint;
use super::graph::{Graph, Kind, Mut};
use super::machine::{Input, run};

fn parse(bytes: &[u8]) -> Result<Graph> {
    let limits = Limits::default();
    let held = Graph::parse(bytes, &limits);
    let outcome = |graph: &Result<Graph>| match graph {
        Ok(graph) => Ok((graph.to_pickle().unwrap(), graph.consumed(), graph.len())),
        Err(e) => Err(e.to_string()),
    };
    // However it comes, it is the same.
    let section = Section::from_bytes(bytes, "memory");
    for window in [1, 2, 3, 5, 8, 64] {
        let read = run(Input::by(&section, u64::MAX, window), 0, &limits, false);
        assert_eq!(outcome(&read), outcome(&held), "by {window} bytes");
    }
    held
}

/// Every pickle of an archive among the fixtures.
fn of_fixtures() -> Vec<(String, Section)> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    let mut out = Vec::new();
    for group in ["torch", "lightning"] {
        for entry in std::fs::read_dir(format!("{fixtures}/{group}")).unwrap() {
            let path = entry.unwrap().path();
            let section = Section::open(&path).unwrap();
            let Ok(archive) = crate::zip::Archive::open(&section, &Limits::default()) else {
                continue;
            };
            let Some(member) = archive.get("data.pkl") else { continue };
            // A deflated one takes a feature.
            let Ok(section) = member.section() else { continue };
            out.push((path.display().to_string(), section));
        }
    }
    assert!(out.len() > 65, "{}", out.len());
    out
}

#[test]
fn real_pickles_are_the_same_in_every_window() {
    for (name, section) in of_fixtures() {
        let limits = Limits::default();
        let held = Graph::parse(section.read(u64::MAX).unwrap(), &limits).unwrap();
        let whole = Graph::read(&section, &limits).unwrap();
        for window in [1, 3, 100] {
            let read = run(Input::by(&section, u64::MAX, window), 0, &limits, false).unwrap();
            assert_eq!((read.consumed(), read.len()), (held.consumed(), held.len()), "{name}");
            assert!(read.to_pickle().unwrap() == held.to_pickle().unwrap(), "{name}");
            assert!(read.to_pickle().unwrap() == whole.to_pickle().unwrap(), "{name}");
        }
    }
}

#[test]
fn a_length_beyond_all_bounds() {
    // A text, then one whose length does not fit behind it.
    let said = refused(b"\x80\x04\x8c\x01a\x8d\xff\xff\xff\xff\xff\xff\xff\xff");
    assert!(said.contains("18446744073709551615 bytes are wanted, 0 are left"), "{said}");
}

#[test]
fn what_is_longer_than_a_pickle_may_be_is_refused() {
    let pickle = b"\x80\x02X\x05\0\0\0epoch.";
    let limit = |bytes| {
        let mut limits = Limits::default();
        limits.pickle_bytes = bytes;
        limits
    };
    let long = Section::from_bytes([&pickle[..], &[0; 100]].concat(), "memory");
    let e = Graph::read(&long, &limit(100)).unwrap_err();
    assert!(e.to_string().contains("113 bytes, the limit is 100"), "{e}");
    // Of what follows it nothing is known beforehand.
    assert_eq!(Graph::read_start(&long, &limit(13)).unwrap().consumed(), 13);
    let e = Graph::read_start(&long, &limit(12)).unwrap_err();
    assert_eq!(e.kind(), ckptkit_core::ErrorKind::LimitExceeded);
    // A text that is as long as a whole read.
    let text = "long".repeat(1 << 18);
    let mut pickle = b"\x80\x02X\0\0\x10\0".to_vec();
    pickle.extend(text.as_bytes());
    pickle.extend(b"q\0.");
    let section = Section::from_bytes(pickle.clone(), "memory");
    let read = Graph::read(&section, &Limits::default()).unwrap();
    assert_eq!((read.root().as_str(), read.consumed()), (Some(&*text), pickle.len()));
    pickle.truncate(1 << 20);
    let e = Graph::read(&Section::from_bytes(pickle, "cut"), &Limits::default()).unwrap_err();
    assert!(e.to_string().contains("1048576 bytes are wanted, 1048569 are left"), "{e}");
}

fn compacted(bytes: impl Into<Vec<u8>>, limits: &Limits) -> Result<Graph> {
    Graph::read_compact(&Section::from_bytes(bytes, "memory"), limits)
}

fn refused(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn protocol_0_text() {
    // pickle.dumps({'a': [1, 2**70, True, None, 1.5]}, 0), as CPython 3.11 writes it.
    let g =
        parse(b"(dp0\nVa\np1\n(lp2\nI1\naL1180591620717411303424L\naI01\naNaF1.5\nas.").unwrap();
    let (key, list) = g.root().pairs()[0];
    assert_eq!(key.as_str(), Some("a"));
    let items = list.items();
    assert_eq!(items[0].as_int(), Some(1));
    assert!(
        matches!(items[1].kind(), Kind::BigInt(b) if bigint::decimal(b) == "1180591620717411303424")
    );
    assert_eq!(items[2].kind(), Kind::Bool(true));
    assert!(items[3].is_none());
    assert_eq!(items[4].as_f64(), Some(1.5));
}

#[test]
fn sharing_and_cycles_survive() {
    // l = []; l.append(l)
    let g = parse(b"\x80\x02]q\x00h\x00a.").unwrap();
    assert_eq!(g.root().items()[0].id(), g.root().id());
}

#[test]
fn calls_are_data() {
    let g = parse(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x00\x85R.").unwrap();
    let (callable, args) = g.root().call().unwrap();
    assert!(callable.as_global().unwrap().is("os", "system"));
    assert_eq!(args[0].as_str(), Some("true"));
    assert_eq!(g.globals().map(|g| g.to_string()).collect::<Vec<_>>(), ["os.system"]);
}

#[test]
fn python_equality_of_keys() {
    // {1: 'a', True: 'b', 1.0: 'c', '1': 'd'} set one by one.
    let g =
        parse(b"\x80\x02}(K\x01U\x01a\x88U\x01bG\x3f\xf0\0\0\0\0\0\0U\x01cU\x011U\x01du.").unwrap();
    let pairs = g.root().pairs();
    assert_eq!(pairs.len(), 2);
    assert_eq!(pairs[0].0.kind(), Kind::Int(1));
    assert_eq!(pairs[0].1.as_str(), Some("c"));
}

#[test]
fn mutations_of_any_object_are_kept() {
    let g = parse(b"\x80\x02cm\nC\n)\x81K\x01aK\x02K\x03s}b.").unwrap();
    let muts: Vec<_> = g.root().muts().collect();
    assert!(matches!(muts[..], [Mut::Append(_), Mut::SetItems(_), Mut::Build(_)]));
}

#[test]
fn a_memo_bomb_costs_what_it_weighs() {
    let mut b = b"\x80\x02K\x01q\x00".to_vec();
    for i in 0..60 {
        b.extend_from_slice(&[b'h', i, b'h', i, 0x86, b'q', i + 1]);
    }
    b.push(b'.');
    assert_eq!(parse(&b).unwrap().len(), 61);
}

#[test]
fn refusals() {
    for (bytes, words) in [
        (&b""[..], "ends early"),
        (b"\x80\x02", "ends early"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "2147483647 bytes are wanted"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "an integer of -1 bytes"),
        (b"\x80\x02h\x05.", "memo entry 5"),
        (b"\x80\x02t.", "never begun"),
        (b"\x80\x02(.", "empty stack"),
        (b"\x80\x02R.", "empty stack"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02\x82\x01.", "EXT"),
        (b"\x80\x05\x97.", "out-of-band"),
        (b"hello world", "memo entry"),
        (b"\xff", "no pickle opcode"),
        (b"\x80\x02}(K\x01u.", "key without a value"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "ends early"),
    ] {
        assert!(refused(bytes).contains(words), "{bytes:?}: {}", refused(bytes));
    }
}

#[test]
fn depth_costs_no_stack() {
    let mut b = b"\x80\x02".to_vec();
    b.extend(std::iter::repeat_n(b')', 1));
    b.extend(std::iter::repeat_n(0x85, 900_000));
    b.push(b'.');
    let g = parse(&b).unwrap();
    assert_eq!(g.len(), 900_001);
    drop(g);
}

#[test]
fn limits_hold() {
    let mut limits = Limits::default();
    limits.nodes = 3;
    assert!(Graph::parse(b"\x80\x02(NNNNt.", &limits).is_err());
    limits.pickle_bytes = 2;
    assert!(Graph::parse(b"\x80\x02N.", &limits).is_err());
}

/// Each row: a pickle of protocol 4 or 5, and what CPython 3.11 writes for the same object with
/// protocol 2, without unused memo entries (`tests/data/make_emit.py`).
#[test]
fn what_is_written_is_what_cpython_writes() {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    let table = include_str!("../../tests/data/emit.tsv");
    let mut rows = 0;
    for row in table.lines() {
        let [name, from, to] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let written = parse(&bytes(from)).unwrap().to_pickle().unwrap();
        let wanted = bytes(to);
        assert!(written == wanted, "{name}: {}", written.escape_ascii());
        // What was written is read as the same object, and written the same way again.
        assert_eq!(parse(&written).unwrap().to_pickle().unwrap(), written, "{name}");
        rows += 1;
    }
    assert!(rows >= 29, "{rows} rows");
}

#[test]
fn compact_graphs_say_the_same_with_fewer_nodes() {
    // [(1, None, ()), (1, None, ()), {"a": True, "b": 1}, 300, 300]
    let pickle = b"\x80\x02](K\x01N)\x87K\x01N)\x87}(U\x01a\x88U\x01bK\x01uM\x2c\x01M\x2c\x01e.";
    let limits = Limits::default();
    let (plain, compact) =
        (Graph::parse(&pickle[..], &limits).unwrap(), compacted(&pickle[..], &limits).unwrap());
    // The same values, of which equal tuples are one object now.
    let written = plain.to_pickle().unwrap();
    let again = compacted(written, &limits).unwrap();
    assert_eq!(again.to_pickle().unwrap(), compact.to_pickle().unwrap());
    assert_eq!((plain.len(), compact.len()), (16, 10));
    let items = compact.root().items();
    let ids: Vec<_> = items.iter().map(|item| item.id()).collect();
    assert_eq!((ids[0], ids[3]), (ids[1], ids[4]));
    let kinds = |graph: &Graph, at: usize| {
        graph.root().items()[at]
            .items()
            .iter()
            .map(|n| format!("{:?}", n.kind()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&plain, 1)[..2], kinds(&compact, 1)[..2]);
    assert_eq!(compact.root().items()[4].as_int(), Some(300));
    // NONE, NONE, BUILD: Python does nothing here; nobody writes it. So with 300 and (None,).
    for changed in [&b"\x80\x02NNb."[..], b"\x80\x02M\x2c\x01Nb.", b"\x80\x02N\x85Nb."] {
        assert!(Graph::parse(changed, &limits).is_ok());
        let e = compacted(changed, &limits).unwrap_err();
        assert_eq!(e.kind(), ckptkit_core::ErrorKind::Malformed);
    }
}
