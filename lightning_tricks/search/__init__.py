"""What Optuna is asked, told and trusted with."""
