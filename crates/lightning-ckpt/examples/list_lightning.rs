//! Prints what a Lightning checkpoint is and holds: `cargo run --example list_lightning -- last.ckpt`.

use lightning_ckpt::LightningCkpt;

fn main() -> ckptkit_core::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(ckptkit_core::Error::invalid("usage: list CHECKPOINT"));
    };
    let ckpt = LightningCkpt::open(path)?;
    println!("written by Lightning {}", ckpt.lightning_version().unwrap_or("(before 1.0)"));
    let training = ckpt.training();
    println!("epoch {:?}, step {:?}", training.epoch, training.global_step);
    println!("{} optimizers, {} schedulers", training.optimizers, training.lr_schedulers);
    for (name, _) in ckpt.callbacks()? {
        println!("callback {name}");
    }
    if let Some(hparams) = ckpt.hyper_parameters()? {
        println!("hyper-parameters {:?}", hparams.into_plain());
    }
    println!("further keys {:?}", ckpt.extra_keys());
    for (name, tensor) in ckpt.state_dict() {
        println!("{name} {} {:?}", tensor.dtype(), tensor.shape());
    }
    Ok(())
}
