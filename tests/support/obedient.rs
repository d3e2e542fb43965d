//! Conversions as a user makes them: who does what the error says, for as long as there is one.

use std::path::Path;

use ckptkit::{Checkpoint, Convert, CopyOptions, ErrorKind, Existing, Glob, Report};

use crate::fixture::Fixture;

/// Converts as the command line would, and does what the error says for as long as it refuses: a
/// suggestion that does not help is a failure here. Gives the conversion that worked; `None` where
/// nothing is left to be written.
pub fn convert(f: &Fixture, mut wish: Convert, to: &Path) -> Option<(Convert, Report)> {
    let checkpoint = Checkpoint::open(&f.path).unwrap();
    for _ in 0..40 {
        let plan = match wish.plan(&checkpoint, to) {
            Ok(plan) => plan,
            Err(e) if e.message() == "no tensor is selected" => {
                assert!(f.manifest.tensors.iter().all(|t| t.sha256.is_none()));
                return None;
            }
            Err(e) => {
                obey(&e, &mut wish, to);
                continue;
            }
        };
        let report = plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        return Some((wish, report));
    }
    panic!("the suggestions lead nowhere");
}

/// Applies what an error suggests.
fn obey(error: &ckptkit::Error, wish: &mut Convert, to: &Path) {
    let text = error.to_string();
    if let Some((_, glob)) = text.split_once("--exclude '") {
        let glob = glob.split_once('\'').unwrap().0;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
        assert!(text.contains("tensor "), "the tensor is named: {text}");
        wish.selection.exclude.push(Glob::new(glob).unwrap());
    } else if let Some((_, key)) = text.split_once("such as --weights-key ") {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        assert!(wish.weights_key.is_none(), "{text}");
        wish.weights_key = Some(key.trim_end_matches(')').to_owned());
    } else if text.contains("give one with --config FILE") {
        assert!(wish.config.is_none(), "{text}");
        let config = to.with_extension("yaml");
        std::fs::write(&config, "target: made.up.Model\nlayers: 2\n").unwrap();
        wish.config = Some(config);
    } else {
        panic!("nothing is suggested: {text}");
    }
}
