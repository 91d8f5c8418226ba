//! `sandbox` runs a coding agent on a project without lending it the developer's machine, workspace or keys.
//!
//! The modules below stand in the order in which a newcomer should read them. Data flows one way: text becomes typed
//! values ([`project`], [`profile`], [`image`], [`credential`], [`network`]), these become one pure
//! [`session::plan::Plan`], and [`session`] applies it through [`engine`], the only module that talks to Docker.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr))]

pub mod beneath;

pub mod project;

pub mod profile;

pub mod network;

pub mod credential;

pub mod image;

pub mod workspace;

pub mod editor;

pub mod session;

pub mod engine;

pub mod gateway;

pub mod init;

pub mod audit;

pub mod commands;

pub mod cli;
