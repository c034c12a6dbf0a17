//! The places where tests interrupt work; here nothing does.

#[path = "../../src/task/fault.rs"]
mod fault;

pub use fault::fault_point;
