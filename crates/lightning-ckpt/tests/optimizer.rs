//! Names of optimizers' parameters, against those that the real optimizers had.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::{ErrorKind, Section, TensorSource};
use lightning_ckpt::LightningCkpt;
use lightning_ckpt::optimizer::{NameSource, OptimizerView, ParameterNames};
use serde_json::Value as Json;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lightning")
}

fn open(name: &str) -> LightningCkpt {
    LightningCkpt::open(fixtures().join(name)).unwrap()
}

/// The names in the order of the integers, as the run that wrote the fixture had them.
fn expected(name: &str) -> Vec<Vec<String>> {
    let manifest = std::fs::read(fixtures().join(format!("{name}.json"))).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let names = |o: &Json| -> Vec<String> {
        o.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect()
    };
    manifest["optimizers"].as_array().unwrap().iter().map(names).collect()
}

fn names(view: &OptimizerView) -> Vec<String> {
    view.parameters().iter().map(|p| p.name.clone().unwrap_or_default()).collect()
}

fn check(name: &str, source: &NameSource) {
    let ckpt = open(name);
    let views = ckpt.optimizers(&ParameterNames::Find).unwrap();
    let expected = expected(name);
    assert_eq!(views.len(), expected.len(), "{name}");
    for (view, expected) in views.iter().zip(&expected) {
        assert_eq!((view.source(), &names(view)), (source, expected), "{name}");
        assert!(view.is_named());
        for (integer, name) in (0..).zip(expected) {
            assert_eq!(
                (view.name(integer), view.integer(name)),
                (Some(name.as_str()), Some(integer))
            );
        }
        // Every moment is that of a weight of its shape.
        for parameter in view.parameters() {
            let weight = ckpt.weight(parameter.name.as_ref().unwrap()).unwrap();
            for tensor in parameter.tensors.iter().filter(|t| t.key != "step") {
                assert_eq!(tensor.shape, weight.shape());
                assert_eq!(ckpt.tensor(&tensor.name).unwrap().shape(), weight.shape());
            }
        }
    }
}

#[test]
fn names_of_real_runs() {
    for name in [
        "adam.ckpt",
        "bf16.ckpt",
        "decay_groups.ckpt",
        "ema.ckpt",
        "hparams_refused.ckpt",
        "mixed_precision.ckpt",
        "sgd.ckpt",
        "tied.ckpt",
        "two_optimizers.ckpt",
        "unused.ckpt",
    ] {
        check(name, &NameSource::Found);
    }
    check("named_parameters.ckpt", &NameSource::Recorded);
    assert!(open("weights_only.ckpt").optimizers(&ParameterNames::Find).unwrap().is_empty());
}

#[test]
fn a_frozen_layer_of_the_same_shape_leaves_two_ways() {
    let ckpt = open("frozen_twin.ckpt");
    let view = &ckpt.optimizers(&ParameterNames::Find).unwrap()[0];
    let NameSource::Ambiguous { ways, examples } = view.source() else { panic!("{view:?}") };
    // One weight of two that are shaped alike, and five of six biases and norms.
    let expected = expected("frozen_twin.ckpt");
    assert_eq!((*ways, examples.len()), (Some(2 * 6), 3));
    let told = |e: &[(u64, String)]| e.iter().map(|(i, _)| *i).collect::<Vec<_>>();
    assert_eq!(told(&examples[0]), [1, 2, 3, 4, 5, 6]);
    let name = |e: usize| examples[e][0].1.as_str();
    assert_eq!((name(0), name(1)), ("net.frozen.weight", "net.body.weight"));
    assert_eq!((view.name(0), view.is_named()), (None, false));
    let (tensor, name) = view.renamed("optimizer").nth(1).unwrap();
    assert_eq!((tensor.key.as_str(), name.as_str()), ("exp_avg", "optimizer.exp_avg.0"));

    // What the model calls its parameters leaves out the buffers, and still has the frozen ones.
    let model: Vec<String> = ckpt
        .state_dict()
        .map(|(name, _)| name.to_owned())
        .filter(|n| {
            !["running_mean", "running_var", "num_batches_tracked", "window", "head.weight"]
                .iter()
                .any(|b| n.ends_with(b))
        })
        .collect();
    let given = ckpt.optimizers(&ParameterNames::Model(model.clone())).unwrap();
    assert!(matches!(given[0].source(), NameSource::Ambiguous { .. }));
    let trained: Vec<String> = model.into_iter().filter(|n| !n.contains("frozen")).collect();
    let given = ckpt.optimizers(&ParameterNames::Model(trained)).unwrap();
    assert_eq!((given[0].source(), names(&given[0])), (&NameSource::Given, expected[0].clone()));
    let given = ckpt.optimizers(&ParameterNames::Each(expected.clone())).unwrap();
    assert_eq!((given[0].source(), names(&given[0])), (&NameSource::Given, expected[0].clone()));
    assert!(given[0].renamed("optimizer").any(|(_, n)| n == "optimizer.exp_avg.net.body.weight"));
}

#[test]
fn names_that_do_not_fit() {
    let ckpt = open("adam.ckpt");
    let refused = |names: ParameterNames| {
        let e = ckpt.optimizers(&names).unwrap_err();
        (e.kind(), e.to_string())
    };
    let mut list = expected("adam.ckpt");
    assert_eq!(refused(ParameterNames::Each(Vec::new())).0, ErrorKind::InvalidArgument);
    list[0].swap(0, 1);
    let (kind, text) = refused(ParameterNames::Each(list.clone()));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("optimizer 0") && text.contains("[3, 4]"), "{text}");
    list[0].pop();
    assert!(refused(ParameterNames::Each(list.clone())).1.contains("5 names are given"));
    let (kind, text) = refused(ParameterNames::Model(vec!["first.weight".into()]));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("the state dict has no \"first.weight\""), "{text}");
    let e = OptimizerView::from_groups(1, &[vec!["a".into()], vec!["a".into()]]).unwrap_err();
    assert!(e.to_string().contains("\"a\""), "{e}");
}

// --- by hand: pickles of protocol 0, whose tensors have no bytes ----------------

/// A meta tensor.
fn tensor(shape: &[u64]) -> String {
    let dims: String = shape.iter().map(|d| format!("I{d}\n")).collect();
    format!(
        "ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n({dims}t({dims}tI00\ntR"
    )
}

/// A checkpoint of these weights, and optimizers of groups of states.
fn made(weights: &[(&str, &[u64])], optimizers: &[&str]) -> LightningCkpt {
    let weights: String = weights.iter().map(|(n, s)| format!("V{n}\n{}s", tensor(s))).collect();
    let optimizers: String = optimizers.iter().map(|o| format!("{o}a")).collect();
    let pickle = format!(
        "(dVepoch\nI1\nsVglobal_step\nI2\nsVstate_dict\n(d{weights}sVoptimizer_states\n(l{optimizers}s."
    );
    LightningCkpt::from_section(&Section::from_bytes(pickle.into_bytes(), "made.ckpt")).unwrap()
}

/// The tensors in a parameter's state: keys and shapes.
type State<'a> = Vec<(&'a str, &'a [u64])>;

/// The state of an optimizer: groups of parameters, each with the tensors of its state.
fn optimizer(groups: &[Vec<State<'_>>]) -> String {
    let (mut state, mut list, mut n) = (String::new(), String::new(), 0);
    for group in groups {
        let mut params = String::new();
        for tensors in group {
            let entries: String =
                tensors.iter().map(|(k, s)| format!("V{k}\n{}s", tensor(s))).collect();
            state.push_str(&format!("I{n}\n(d{entries}s"));
            params.push_str(&format!("I{n}\na"));
            n += 1;
        }
        list.push_str(&format!("(dVparams\n(l{params}sa"));
    }
    format!("(dVstate\n(d{state}sVparam_groups\n(l{list}s")
}

fn found(ckpt: &LightningCkpt) -> Vec<(NameSource, Vec<String>)> {
    let views = ckpt.optimizers(&ParameterNames::Find).unwrap();
    views.iter().map(|v| (v.source().clone(), names(v))).collect()
}

#[test]
fn buffers_of_norms_are_no_parameters() {
    let norm: [(&str, &[u64]); 4] =
        [("n.weight", &[4]), ("n.bias", &[4]), ("n.running_mean", &[4]), ("n.running_var", &[4])];
    let two = optimizer(&[vec![vec![("exp_avg", &[4])], vec![("exp_avg", &[4])]]]);
    let ckpt = made(&norm, &[&two]);
    assert_eq!(found(&ckpt), [(NameSource::Found, vec!["n.weight".into(), "n.bias".into()])]);
    // Where nothing else fits, they may be parameters that are called so.
    let four = optimizer(&[vec![vec![("exp_avg", &[4])]; 4]]);
    let names: Vec<String> = norm.iter().map(|(n, _)| (*n).to_owned()).collect();
    assert_eq!(found(&made(&norm, &[&four])), [(NameSource::Found, names)]);
    let five = optimizer(&[vec![vec![("exp_avg", &[4])]; 5]]);
    assert_eq!(found(&made(&norm, &[&five]))[0].0, NameSource::NoFit);
}

#[test]
fn shapes_of_every_optimizer() {
    let weights: [(&str, &[u64]); 3] = [("a", &[6, 5]), ("b", &[5]), ("c", &[5, 6])];
    let check = |state: Vec<(&str, &[u64])>, expected: &str| {
        let ckpt = made(&weights, &[&optimizer(&[vec![state.clone()]])]);
        let (source, names) = found(&ckpt).remove(0);
        assert_eq!((source, names), (NameSource::Found, vec![expected.to_owned()]), "{state:?}");
    };
    check(vec![("step", &[]), ("exp_avg", &[5])], "b");
    check(vec![("step", &[]), ("sum", &[5, 6])], "c");
    check(vec![("exp_avg_sq_row", &[5]), ("exp_avg_sq_col", &[6])], "c");
    check(vec![("row_var", &[6, 1]), ("col_var", &[1, 5])], "a");
    check(vec![("state1", &[6, 5]), ("absmax1", &[1])], "a");
    // An optimizer that nobody here has heard of.
    check(vec![("speed", &[5, 6]), ("scale", &[])], "c");
    // Its tensors contradict each other, so that any of the three could be meant.
    let odd = optimizer(&[vec![vec![("d", &[30]), ("al", &[2])]]]);
    let (source, _) = found(&made(&weights, &[&odd])).remove(0);
    assert!(matches!(source, NameSource::Ambiguous { ways: Some(3), .. }), "{source:?}");
}

/// What one optimizer has, another one has not: so it is settled which.
#[test]
fn optimizers_settle_each_other() {
    let weights: [(&str, &[u64]); 3] = [("g.w", &[4, 4]), ("g.b", &[4]), ("d.w", &[4, 4])];
    let state = |shape| vec![("exp_avg", shape)];
    let first = optimizer(&[vec![state(&[4, 4][..]), state(&[4])]]);
    let second = optimizer(&[vec![state(&[4, 4])]]);
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found(&made(&weights, &[&first, &second])),
        [(NameSource::Found, names(&["g.w", "g.b"])), (NameSource::Found, names(&["d.w"])),]
    );
    // Two that could be exchanged stay open.
    let both = found(&made(&weights, &[&second, &second]));
    assert!(both.iter().all(|(s, _)| matches!(s, NameSource::Ambiguous { .. })), "{both:?}");
}

#[test]
fn recorded_names() {
    let weights: [(&str, &[u64]); 3] = [("net.a", &[2]), ("net.b", &[2]), ("other.a", &[3])];
    let state = |names: &str| {
        format!(
            "(dVstate\n(dI0\n(dVexp_avg\n{0}ssI1\n(dVexp_avg\n{0}sssVparam_groups\n(l(dVparams\n(lI0\naI1\nasVparam_names\n(l{names}sas",
            tensor(&[2])
        )
    };
    let check = |names: &str, source: NameSource, expected: [&str; 2]| {
        let (found, list) = found(&made(&weights, &[&state(names)])).remove(0);
        assert_eq!((found, &list[..]), (source, &expected.map(str::to_owned)[..]), "{names}");
    };
    check("Vnet.b\naVnet.a\na", NameSource::Recorded, ["net.b", "net.a"]);
    // As a part of the model calls them.
    check("Vb\naVa\na", NameSource::Recorded, ["net.b", "net.a"]);
    // Of another model: what fits is found.
    check("Vx\naVy\na", NameSource::Found, ["net.a", "net.b"]);
}

#[test]
fn states_that_are_none() {
    for (state, words) in [
        ("(d", "no `param_groups`"),
        ("(dVparam_groups\n(l(das", "no `params`"),
        ("(dVparam_groups\n(l(dVparams\n(lF0.5\nasas", "neither an integer nor a name"),
        ("(dVparam_groups\n(l(dVparams\n(lI0\naI0\nasas", "in the groups twice"),
    ] {
        let e = made(&[], &[state]).optimizers(&ParameterNames::Find).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.to_string().contains(words), "{e}");
        assert!(e.to_string().starts_with("made.ckpt: optimizer_states.0: "), "{e}");
    }
    // States by name, as sharded strategies write them.
    let named = "(dVstate\n(dsVparam_groups\n(l(dVparams\n(lVw\nasas";
    let ckpt = made(&[("w", &[2])], &[named]);
    assert_eq!(found(&ckpt), [(NameSource::Recorded, vec!["w".into()])]);
}

/// Shampoo and others keep containers in a parameter's state; what holds itself ends.
#[test]
fn states_that_nest() {
    let nested = format!(
        "(dVstate\n(dI0\n(dVexp_avg\n{}sVfactors\n(dI0\n{}sI1\n(l{}assssVparam_groups\n(l(dVparams\n(lI0\nasas",
        tensor(&[2, 3]),
        tensor(&[2, 2]),
        tensor(&[3, 3])
    );
    let ckpt = made(&[("w", &[2, 3]), ("v", &[3])], &[&nested]);
    assert_eq!(found(&ckpt), [(NameSource::Found, vec!["w".into()])]);
    let views = ckpt.optimizers(&ParameterNames::Find).unwrap();
    let renamed: Vec<(&str, String)> =
        views[0].renamed("o").map(|(t, new)| (t.name.as_str(), new)).collect();
    let place = |key: &str| format!("optimizer_states.0.state.0.{key}");
    let expected = ["exp_avg", "factors.0", "factors.1.0"];
    for ((name, new), key) in renamed.iter().zip(expected) {
        assert_eq!((*name, new), (place(key).as_str(), &format!("o.{key}.w")));
    }
    assert_eq!(renamed.len(), expected.len());

    let cycle = "(dVstate\n(dI0\n(dp9\nVagain\ng9\nsssVparam_groups\n(l(dVparams\n(lI0\nasas";
    let views = made(&[("w", &[2])], &[cycle]).optimizers(&ParameterNames::Find).unwrap();
    assert!(views[0].parameters()[0].tensors.is_empty());
}

/// Torch's flattening makes text of the keys, and leaves the numbers in the groups.
#[test]
fn states_under_numbers_that_are_text() {
    let text = format!(
        "(dVstate\n(dV0\n(dVexp_avg\n{}sssVparam_groups\n(l(dVparams\n(lI0\nasas",
        tensor(&[3])
    );
    let ckpt = made(&[("w", &[2]), ("v", &[3])], &[&text]);
    assert_eq!(found(&ckpt), [(NameSource::Found, vec!["v".into()])]);
}

/// Ten thousand parameters in the usual case: a moment.
#[test]
fn many_parameters() {
    let names: Vec<(String, Vec<u64>)> = (0..2_500)
        .flat_map(|i| {
            [
                (format!("layers.{i}.fc.weight"), vec![8, 4]),
                (format!("layers.{i}.fc.bias"), vec![8]),
                (format!("layers.{i}.norm.weight"), vec![4]),
                (format!("layers.{i}.norm.bias"), vec![4]),
                (format!("layers.{i}.norm.running_mean"), vec![4]),
                (format!("layers.{i}.norm.running_var"), vec![4]),
            ]
        })
        .collect();
    let weights: Vec<(&str, &[u64])> = names.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
    let trained = |decay: bool| -> Vec<Vec<(&str, &[u64])>> {
        let of = weights.iter().filter(|(n, s)| !n.contains("running") && (s.len() > 1) == decay);
        of.map(|(_, s)| vec![("exp_avg", *s)]).collect()
    };
    let ckpt = made(&weights, &[&optimizer(&[trained(true), trained(false)])]);
    let started = std::time::Instant::now();
    let (source, list) = found(&ckpt).remove(0);
    assert_eq!((source, list.len()), (NameSource::Found, 10_000));
    assert_eq!(list[2_500], "layers.0.fc.bias");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    // A group a layer, all alike: more ways than can be counted, and still an answer.
    let layers: Vec<_> = (0..200)
        .map(|_| vec![vec![("exp_avg", &[8, 4][..])], vec![("exp_avg", &[8][..])]])
        .collect();
    let (source, _) = found(&made(&weights, &[&optimizer(&layers)])).remove(0);
    let NameSource::Ambiguous { ways: None, examples } = source else { panic!("{source:?}") };
    assert_eq!(examples.len(), 2);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
