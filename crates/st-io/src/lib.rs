//! Reads and writes safetensors files and Hugging Face sharded directories.
