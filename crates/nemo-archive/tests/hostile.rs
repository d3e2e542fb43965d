//! What is refused, why, and that the message names the member.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use ckptkit_core::{ErrorKind, Section};
use common::{CONFIG, Header, Tar, refuse, weights};
use nemo_archive::{ArchiveLimits, NemoArchive, OpenOptions};

#[track_caller]
fn check(bytes: Vec<u8>, kind: ErrorKind, says: &[&str]) {
    let e = refuse(bytes);
    let message = e.to_string();
    assert_eq!(e.kind(), kind, "{message}");
    assert!(message.starts_with("test.nemo: "), "{message}");
    for text in says {
        assert!(message.contains(text), "{text:?} not in {message:?}");
    }
}

#[test]
fn names_that_could_leave_the_archive() {
    for name in [
        "/tmp/evil",
        "../evil",
        "a/../../evil",
        "a/..",
        "C:evil",
        "C:/evil",
        "a\\b",
        "\\\\host\\share",
        "//host/share",
    ] {
        let by_header = Tar::model().file(name, b"x").end();
        check(by_header, ErrorKind::Denied, &["member "]);
        // An override counts, not what it hides.
        let by_pax = Tar::model().pax(b'x', &[("path", name)]).file("innocent", b"x").end();
        check(by_pax, ErrorKind::Denied, &["member "]);
        let long = Header::gnu(b"././@LongLink", b'L', name.len() as u64 + 1);
        let by_gnu = Tar::model().raw(long, format!("{name}\0").as_bytes()).file("innocent", b"x");
        check(by_gnu.end(), ErrorKind::Denied, &["member "]);
    }
    check(Tar::model().file("", b"x").end(), ErrorKind::Denied, &["empty"]);
    check(Tar::model().file("./", b"x").end(), ErrorKind::Malformed, &["slash"]);
    let nul = Tar::model().pax(b'x', &[("path", "a\0b")]).file("i", b"x").end();
    check(nul, ErrorKind::Denied, &["NUL"]);
    let latin = Header::ustar(b"t\xf6k.model", b'0', 0);
    check(Tar::model().raw(latin, b"").end(), ErrorKind::Unsupported, &["UTF-8"]);
}

#[test]
fn members_that_are_neither_file_nor_directory() {
    for (kind, says) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "FIFO"),
        (b'S', "sparse"),
    ] {
        let header = Header::gnu(b"./m", kind, 0).field(157, b"model_config.yaml");
        check(Tar::model().raw(header, b"").end(), ErrorKind::Denied, &["member ./m", says]);
    }
    let header = Header::ustar(b"./m", b'Z', 0);
    check(Tar::model().raw(header, b"").end(), ErrorKind::Unsupported, &["member ./m", "'Z'"]);
    let tar = Tar::model().pax(b'x', &[("GNU.sparse.major", "1")]).file("m", b"");
    check(tar.end(), ErrorKind::Denied, &["sparse"]);
    let tar = Tar::model().pax(b'x', &[("linkpath", "/etc/passwd")]).file("m", b"");
    check(tar.end(), ErrorKind::Denied, &["member m", "link target"]);
    let long = Header::gnu(b"././@LongLink", b'K', 2);
    let tar = Tar::model().raw(long, b"x\0").file("m", b"");
    check(tar.end(), ErrorKind::Denied, &["member m", "link target"]);
}

#[test]
fn two_members_of_one_name() {
    let config = CONFIG.as_bytes();
    check(
        Tar::model().file("././model_config.yaml", config).end(),
        ErrorKind::Malformed,
        &["member model_config.yaml", "two members"],
    );
    check(
        Tar::model().file("d", b"").dir("d/").end(),
        ErrorKind::Malformed,
        &["member d", "two members"],
    );
    // Only the case differs: two files where they are read, one where they are unpacked.
    let archive = common::open(Tar::model().file("a", b"").file("A", b"").end()).unwrap();
    assert!(archive.notes().iter().any(|n| n.contains("differ only in case")));
    common::open(Tar::model().dir("d").dir("d/").dir("./").end()).unwrap();
}

#[test]
fn files_as_directories() {
    for (tar, says) in [
        (Tar::model().file("model_weights.ckpt/x", b""), "member model_weights.ckpt/x"),
        (Tar::model().file("a", b"").file("a/b/c", b""), "member a/b/c"),
        (
            Tar::default().file("model_config.yaml", b"a: 1\n").dir("model_weights.ckpt"),
            "member model_weights.ckpt",
        ),
        (
            Tar::default().file("model_config.yaml", b"a: 1\n").file("model_weights.ckpt/x", b""),
            "member model_weights.ckpt/x",
        ),
        (Tar::default().dir("model_config.yaml/"), "member model_config.yaml"),
    ] {
        check(tar.end(), ErrorKind::Malformed, &[says]);
    }
}

#[test]
fn headers_that_lie() {
    let config = || Tar::default().file("./model_config.yaml", CONFIG.as_bytes());
    let mut bad_sum = Tar::model().end();
    bad_sum[512 + 100] ^= 1;
    check(bad_sum, ErrorKind::Malformed, &["checksum", "at offset 512", "model_config.yaml"]);

    let sized = |field: &[u8; 12]| {
        config().raw(Header::ustar(b"./big", b'0', 0).field(124, field), b"").end()
    };
    for (field, says) in [
        (b"77777777777\0", "the header claims 8589934591 bytes"),
        (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "claims 18446744073709551615"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "negative"),
        (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", "larger than any file"),
        (b"0000000009\0 ", "not octal"),
    ] {
        check(sized(field), ErrorKind::Malformed, &["member ./big", says]);
    }
    let lie = |size: &str| config().pax(b'x', &[("size", size)]).file("./m", b"x").end();
    for (size, says) in [
        ("99999999999", "claims"),
        ("0", "PAX header says 0"),
        ("512", "tar header 1"),
        ("-1", "size"),
    ] {
        check(lie(size), ErrorKind::Malformed, &[says]);
    }
    let dir = Header::ustar(b"d/", b'5', 512);
    check(config().raw(dir, &[1; 512]).end(), ErrorKind::Malformed, &["member d/", "directory of"]);
}

#[test]
fn extension_headers_that_lie() {
    for key in ["path", "size", "linkpath"] {
        let tar = Tar::default().pax(b'g', &[(key, "1")]).file("model_config.yaml", b"a: 1\n");
        check(tar.end(), ErrorKind::Denied, &["global", key]);
    }
    let broken = Header::ustar(b"p", b'x', 9);
    check(Tar::default().raw(broken, b"99 path=a").end(), ErrorKind::Malformed, &["PAX"]);
    let big = vec![b' '; (1 << 20) + 1];
    for kind in [b'x', b'g', b'L', b'K'] {
        let header = Header::ustar(b"p", kind, big.len() as u64);
        check(Tar::default().raw(header, &big).end(), ErrorKind::LimitExceeded, &["1048576"]);
    }
    let twice = Tar::default().pax(b'x', &[("a", "b")]).pax(b'x', &[("a", "b")]).file("m", b"");
    check(twice.end(), ErrorKind::Malformed, &["twice"]);
    let dangling = Tar::model().pax(b'x', &[("path", "m")]);
    check(dangling.end(), ErrorKind::Malformed, &["no member"]);
    let long = Header::gnu(b"././@LongLink", b'L', 2);
    let two = Tar::model().pax(b'x', &[("path", "m")]).raw(long, b"n\0").file("i", b"");
    check(two.end(), ErrorKind::Malformed, &["called m", "and n"]);
    let charset = Tar::model().pax(b'x', &[("hdrcharset", "BINARY")]).file("i", b"");
    check(charset.end(), ErrorKind::Unsupported, &["BINARY"]);
}

#[test]
fn archives_that_are_cut_short() {
    let whole = Tar::model().0;
    let weights = whole.len() - 512;
    for cut in [weights, whole.len() - 600, 1024 + 10, 700] {
        let e = refuse(&whole[..cut]);
        assert!(matches!(e.kind(), ErrorKind::Malformed), "{cut}: {e}");
    }
    check(Vec::new(), ErrorKind::Malformed, &["empty"]);
    check(vec![0; 10240], ErrorKind::Malformed, &["zeros"]);
}

#[test]
fn what_is_something_else_is_called_by_its_name() {
    let padded = |head: &[u8]| [head, &[7; 600]].concat();
    for (head, says) in [
        (&b"PK\x03\x04"[..], "bare .ckpt with the wrong suffix"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"Salted__", "encrypted"),
        (b"\x80\x02}q\0", "pickle"),
        (b"\x10\0\0\0\0\0\0\0{\"a\"", "safetensors"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ] {
        check(padded(head), ErrorKind::Unsupported, &[says]);
    }
    let shard = Tar::default().file("audio_0.wav", b"").file("audio_1.wav", b"");
    check(shard.end(), ErrorKind::NotFound, &["audio_0.wav, audio_1.wav", "dataset"]);
    let only =
        Tar::default().file("model_config.yaml", b"a: 1\n").file("model_weights.safetensors", b"");
    check(only.end(), ErrorKind::NotFound, &["model_weights.safetensors", "safetensors"]);
    let many = (0..50).fold(Tar::default(), |t, i| t.file(&format!("f{i}"), b""));
    check(many.end(), ErrorKind::NotFound, &["f0, f1", "and 42 more"]);
}

#[test]
fn configs_that_are_refused_name_the_member() {
    let with = |config: &str| {
        Tar::default()
            .file("./model_config.yaml", config.as_bytes())
            .file("./model_weights.ckpt", &weights())
            .end()
    };
    check(with("a: 1\na: 2\n"), ErrorKind::Malformed, &["member model_config.yaml: line 1"]);
    check(with("a: !!python/name:os.system\n"), ErrorKind::Denied, &["member model_config.yaml"]);
    check(
        with("tokenizer: {model_path: 'nemo:../../etc/passwd'}\n"),
        ErrorKind::Denied,
        &["key tokenizer.model_path", "'..'"],
    );
    let broken = Tar::default()
        .file("model_config.yaml", b"a: 1\n")
        .file("model_weights.ckpt", b"not a checkpoint at all");
    let e = refuse(broken.end());
    assert!(e.to_string().contains("member model_weights.ckpt"), "{e}");
}

#[test]
fn limits_hold_and_can_be_set() {
    let open = |bytes: Vec<u8>, limits: &ArchiveLimits| {
        let options = OpenOptions::new().limits(limits.clone());
        options.open_section(Section::from_bytes(bytes, "test.nemo"))
    };
    let mut limits = ArchiveLimits::default();
    limits.members = 3;
    open(Tar::model().end(), &limits).unwrap();
    limits.members = 2;
    let e = open(Tar::model().end(), &limits).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let mut limits = ArchiveLimits::default();
    limits.config_bytes = 10;
    let e = open(Tar::model().end(), &limits).unwrap_err();
    assert!(e.to_string().contains("member model_config.yaml"), "{e}");
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::*;
    use common::gzip;

    #[test]
    fn streams_that_are_damaged() {
        let whole = gzip(&Tar::model().end());
        for cut in [5, 12, whole.len() / 2, whole.len() - 4] {
            check(whole[..cut].to_vec(), ErrorKind::Malformed, &["gzip stream", "ends early"]);
        }
        let crc = whole.len() - 8;
        let mut wrong = whole.clone();
        wrong[crc] ^= 1;
        check(wrong, ErrorKind::Malformed, &["gzip stream", "checksum"]);
        let mut wrong = whole;
        wrong[crc + 4] ^= 1;
        check(wrong, ErrorKind::Malformed, &["gzip stream"]);
    }

    #[test]
    fn streams_that_hold_something_else() {
        let twice = gzip(&gzip(&Tar::model().end()));
        check(twice, ErrorKind::Unsupported, &["another gzip stream"]);
        check(gzip(b"hello"), ErrorKind::Unsupported, &["gzip stream", "unknown content"]);
        check(gzip(b""), ErrorKind::Malformed, &["empty"]);
        check(
            gzip(&[b"PK\x03\x04".to_vec(), vec![1; 1000]].concat()),
            ErrorKind::Unsupported,
            &["zip"],
        );
    }

    #[test]
    fn bombs() {
        let mut limits = ArchiveLimits::default();
        limits.gzip_floor = 1 << 20;
        let bomb = Tar::model().file("zeros", &vec![0; 8 << 20]).end();
        let section = Section::from_bytes(gzip(&bomb), "test.nemo");
        let e = OpenOptions::new().limits(limits).open_section(section.clone()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::LimitExceeded);
        assert!(e.to_string().contains("200 times"), "{e}");
        // Below the floor any ratio is fine.
        NemoArchive::from_section(section).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn links_that_leave_a_directory() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("model_config.yaml"), CONFIG).unwrap();
    std::fs::write(at("real.ckpt"), weights()).unwrap();
    symlink("real.ckpt", at("model_weights.ckpt")).unwrap();
    NemoArchive::open(dir.path()).unwrap();

    std::fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path().join("secret"), at("tok.model")).unwrap();
    let e = NemoArchive::open(dir.path()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("member tok.model"), "{e}");

    std::fs::remove_file(at("tok.model")).unwrap();
    symlink(".", at("loop")).unwrap();
    let e = NemoArchive::open(dir.path()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("member loop"), "{e}");
}
