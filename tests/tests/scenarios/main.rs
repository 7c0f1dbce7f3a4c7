//! Scenarios: a real Tidegate in front of a chaos upstream.

mod smoke;
