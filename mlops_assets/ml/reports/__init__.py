"""What people read of a candidate: tables, markdown, the model card."""
