// The precompiled header of the project is built with this translation unit.
