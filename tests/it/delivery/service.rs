//! What a running auditferry tells over HTTP.
