"""`Config` to running parts: the one place that names concrete adapters."""

from cauce.bootstrap.running import Runtime, application, runtime

__all__ = ["Runtime", "application", "runtime"]
