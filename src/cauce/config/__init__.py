"""The configuration: `load` reads file and environment into a `Config`, or says in a `ConfigError` what is wrong."""

from cauce.config.load import FILE, load
from cauce.config.shape import Config, ConfigError, ModelSettings, ProviderSettings

__all__ = ["FILE", "Config", "ConfigError", "ModelSettings", "ProviderSettings", "load"]
