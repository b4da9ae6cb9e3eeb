"""What notebooks and terminals show. Slots import this package, too, so each module is loaded when it is used."""
