//! The exchange of commits: a bundle in, a bundle out, and the review of what came back.
