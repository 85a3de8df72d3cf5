//! What is shipped beside the programs: documents, completions, installation.

mod completions;
mod documents;
mod install;
mod layers;
