"""Bridges to other libraries, imported only on demand."""
