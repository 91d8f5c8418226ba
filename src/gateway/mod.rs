//! The programs `relay` and `gateway`, and the line protocol between launcher and gateway.
//!
//! The relay owns the agent's network namespace, accepts its connections and decides nothing. The gateway, to which it
//! hands them over, makes every decision. Between them is one unix socket ([`channel`]).
//!
//! In the order of a connection: [`relay`] accepts it (and answers DNS, [`dns`] and [`names`], and tells of what is not listed, [`lookups`]); [`program`] takes it from
//! the socket ([`client`]); [`request`] and [`hello`] read what it asks for, as pure functions; [`destination`] matches, resolves,
//! checks and dials, or [`upstream`] asks a proxy; [`connection`] puts these in order, [`permit`] ends what the policy no longer allows and [`budget`]
//! what is too much, and [`tunnel`] or [`forward`] moves the bytes, or [`inspect`] reads the requests inside TLS with
//! certificates of [`authority`] (and [`override_fields`] what they ask to be taken for), [`broker`] and [`sigv4`] put credentials in, and [`leak`] looks in them for credentials that are not for there; [`report`] tells the
//! launcher, with [`denials`] and [`floods`] summed up. [`secrets`] holds the credential files, and [`reads`] watches who opens them.

pub mod protocol;

pub mod channel;

pub mod client;

pub mod dns;

pub mod names;

pub mod lookups;

pub mod relay;

pub mod request;

pub mod hello;

pub mod stream;

pub mod destination;

pub mod upstream;

pub mod transfer;
pub mod tunnel;

pub mod forward;

pub mod authority;

pub mod broker;

pub mod override_fields;

pub mod sigv4;

pub mod budget;

pub mod permit;

pub mod inspect;

pub mod denials;

pub mod floods;

pub mod leak;

pub mod report;

pub mod secrets;

pub mod reads;

pub mod connection;

pub mod program;
pub mod proof;
