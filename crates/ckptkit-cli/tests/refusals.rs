//! Exit codes, and what is said when something is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::process::{Command, Stdio};

use common::{fixture, names, refused, run, stdout};

#[test]
fn exit_codes() {
    let ctc = fixture("nemo/ctc_char.nemo");
    for args in [&["--help"][..], &["--version"], &["help", "convert"], &["ls", "--help"]] {
        assert_eq!(run(args).code, Some(0), "{args:?}");
        assert!(!run(args).stdout.is_empty() && run(args).stderr.is_empty(), "{args:?}");
    }
    for verb in ["inspect", "ls", "show", "digest"] {
        assert_eq!(run(&[verb, &ctc]).code, Some(0), "{verb}");
        assert_eq!(run(&[verb, "no/such/file"]).code, Some(2), "{verb}");
        assert_eq!(run(&[verb]).code, Some(2), "{verb}");
    }
    for usage in [
        &[][..],
        &["paint"],
        &["ls", "--no-such-flag", &ctc],
        &["ls", "--sort", "colour", &ctc],
        &["ls", "--tree", "--json", &ctc],
        &["convert", &ctc],
        &["convert", &ctc, "x", "--to", "paint"],
        &["convert", &ctc, "x", "--threads", "many"],
        &["completions", "tcl"],
    ] {
        let ran = run(usage);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{usage:?}");
        assert!(!ran.stderr.is_empty(), "{usage:?}");
    }
}

#[test]
fn what_cannot_be_opened_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("page.nemo"), "<!DOCTYPE html><html></html>").unwrap();
    std::fs::write(at("text.ckpt"), "Dear reader,\nthis is no checkpoint.\n").unwrap();
    std::fs::write(at("empty.pt"), "").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for (name, words) in [
        ("page.nemo", &["web page", "download it again"][..]),
        ("text.ckpt", &["torch.save"]),
        ("empty.pt", &["empty", "expected a .nemo archive"]),
        ("folder", &["empty", "expected an unpacked .nemo"]),
        ("absent", &["No such file"]),
    ] {
        for verb in ["inspect", "ls", "show", "digest"] {
            let line = refused(&[verb, &at(name)]);
            assert!(line.contains(&at(name)), "{line}");
            assert!(words.iter().all(|w| line.contains(w)), "{verb}: {line}");
        }
        let line = refused(&["convert", &at(name), &at("out")]);
        assert!(words.iter().all(|w| line.contains(w)), "{line}");
    }
}

#[test]
fn text_from_a_file_does_not_talk_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evil.safetensors").to_str().unwrap().to_owned();
    let header = r#"{"__metadata__":{"k":"\u001b]0;owned\u0007"},"\u001b[2Jw":{"dtype":"F99","shape":[1],"data_offsets":[0,4]},"\u001b[31mx":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    std::fs::write(&path, bytes).unwrap();
    for args in [
        &["inspect", &path][..],
        &["ls", &path],
        &["ls", "--tree", &path],
        &["digest", "--json", &path],
        &["ls", "--json", &path],
        &["convert", "--dry-run", &path, "x.safetensors"],
        &["show", &path, "nothing\u{1b}[2J"],
    ] {
        let ran = run(args);
        assert!(!ran.stdout.contains('\u{1b}'), "{args:?} {}", ran.stdout);
        assert!(!ran.stderr.contains('\u{1b}'), "{args:?} {}", ran.stderr);
    }
}

#[test]
fn malformed_arguments_are_refused_before_anything_is_read() {
    for (args, words) in [
        (&["--select", "a[b"][..], "set `[` is not closed"),
        (&["--rename", "nothing"], "'REGEX=TO'"),
        (&["--rename", "(=x"], "rename rule"),
        (&["--max-shard-size", "5 bananas"], "bananas"),
    ] {
        let line = refused(&[&["convert", "no/such/source", "out"][..], args].concat());
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_taken_destination_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken.safetensors").to_str().unwrap().to_owned();
    std::fs::write(&file, "mine").unwrap();
    let full = dir.path().to_str().unwrap();
    for dst in [&*file, full] {
        for more in [&[][..], &["--dry-run"]] {
            let line = refused(&[&["convert", "no/such/source", dst][..], more].concat());
            assert!(line.contains("exists already") && line.contains("--overwrite"), "{line}");
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn near_names_are_suggested() {
    let adam = fixture("lightning/adam.ckpt");
    let line = refused(&["show", &adam, "first.weight"]);
    assert!(line.contains("did you mean state_dict.net.first.weight"), "{line}");
    let line = refused(&["show", &adam, "nothing_like_this"]);
    assert!(line.contains("hyper_parameters"), "{line}");
    let line = refused(&["show", &fixture("nemo/ctc_bpe.nemo"), "nothing"]);
    assert!(line.contains("\"nothing\""), "{line}");
    let ran = run(&["ls", &adam, "state_dict.*"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("`**` crosses them"), "{}", ran.stderr);
}

/// Runs what an error suggests, through a shell as a user would.
#[cfg(unix)]
fn shell(command: &str) -> common::Ran {
    common::from(Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().unwrap())
}

#[cfg(unix)]
#[test]
fn the_suggested_command_works() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_ckptkit");
    for name in ["torch/dtypes_v3.pt", "torch/quantized.pt", "torch/sparse.pt", "torch/ema.pt"] {
        let to = dir.path().join("out.safetensors");
        let mut command = format!("'{program}' convert '{}' '{}'", fixture(name), to.display());
        for tries in 0.. {
            let ran = shell(&command);
            if ran.code == Some(0) {
                break;
            }
            assert!(tries < 20, "{command}\n{}", ran.stderr);
            let more = match ran.stderr.split_once("such as --weights-key ") {
                Some((_, key)) => format!(" --weights-key {}", key.trim()),
                None => {
                    let (_, rest) = ran.stderr.rsplit_once("--exclude ").expect("a suggestion");
                    format!(" --exclude {}", rest.trim())
                }
            };
            command.push_str(&more);
        }
        assert!(to.exists(), "{name}");
        std::fs::remove_file(to).unwrap();
    }
}

/// A pickle of two tensors without bytes, under a name and a key that mean something to a shell.
fn odd_names() -> Vec<u8> {
    let text =
        |s: &str| [b"X", &u32::try_from(s.len()).unwrap().to_le_bytes()[..], s.as_bytes()].concat();
    let meta =
        b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(K\x02t(K\x01t\x89tR";
    let inner = [b"}(", &text("$HOME; it's")[..], meta, &text("b"), meta, b"u"].concat();
    [b"\x80\x02}(", &text("a key's")[..], &inner, b"u."].concat()
}

#[cfg(unix)]
#[test]
fn suggestions_survive_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.pkl");
    std::fs::write(&path, odd_names()).unwrap();
    let path = path.to_str().unwrap();
    let command = format!("'{}' convert '{path}' out", env!("CARGO_BIN_EXE_ckptkit"));
    let first = shell(&command);
    let (_, key) = first.stderr.split_once("such as ").unwrap_or_else(|| panic!("{first:?}"));
    let second = shell(&format!("{command} {key}"));
    let (_, exclude) =
        second.stderr.split_once("them out with ").unwrap_or_else(|| panic!("{second:?}"));
    assert!(second.stderr.contains("tensor $HOME; it's"), "{second:?}");
    assert!(second.stderr.contains("; b cannot be written either"), "{second:?}");
    let third = shell(&format!("{command} {} {}", key.trim(), exclude.trim()));
    assert!(third.stderr.contains("no tensor is selected"), "{third:?}");
}

#[test]
fn a_tidy_report() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out").to_str().unwrap().to_owned();
    let text = stdout(&["convert", &fixture("distcp/torch_2_4"), &to]);
    assert!(text.starts_with(&format!("wrote {to}: 15 tensors, ")), "{text}");
    assert!(text.contains("1 file") && !text.contains("1 files"), "{text}");
    let again = dir.path().join("again").to_str().unwrap().to_owned();
    let text = stdout(&["convert", &to, &again, "--select", "rng", "--dry-run"]);
    assert!(text.starts_with(&format!("would write {again}: 1 tensor, ")), "{text}");
    assert!(text.contains("left out: 14 tensors (not selected): "), "{text}");
    assert!(text.contains(", and 10 more"), "{text}");
    let file = dir.path().join("one.safetensors").to_str().unwrap().to_owned();
    let text = stdout(&["convert", &fixture("nemo/yaml_dialect.nemo"), &file]);
    assert!(text.contains("left out: 1 artifact ") || text.contains(" artifacts ("), "{text}");
    assert_eq!(stdout(&["convert", "--quiet", &to, &again]), "");
    assert_eq!(names(dir.path()), ["again", "one.safetensors", "out"]);
}
